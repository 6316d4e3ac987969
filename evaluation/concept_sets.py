"""Which sounds have which concepts: kinds of concept are columns of manifests, some with a name of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from evaluation.dataset import Dataset, LabelledSound, is_impulse_response
from hooks.errors import AudioSteerError

KINDS = {
    "sound": "esc10:label",
    "keyword": "keywords:label",
    "digit": "digits:label",
    "speaker": "digits:speaker",
}
"""Names for kinds of concept in AudioSteer's own recordings: the subset whose clips have one, and the column."""
SPEECH, NO_SPEECH = (
    ("digits", "keywords", "ljspeech", "orders", "speech_misc"),
    ("esc10", "music", "noise_rir", "notes"),
)
"""Subsets of AudioSteer's own recordings with speech, and without."""
UNPITCHED = ("esc10", "noise_rir", "music", "chords", "drums")
"""Subsets of noises, and of several sounds at once: a tracker of one pitch says nothing about them."""
DESCRIBED = ("label", "speaker", "text", "speech", "pitched")
"""Columns that say what may be measured of a clip."""

Sets = tuple[list[LabelledSound], list[LabelledSound]]
"""Sounds to train on, and those held out."""


class LabelError(AudioSteerError):
    """Labels that are not there, or that name a clip that is missing."""


def has_speech(labels: Mapping[str, str]) -> bool | None:
    """By the column `speech` of a clip's manifest, else by its subset, else yes where it has a `text`; None where none
    of them says it."""
    if labels.get("speech", "").lower() in ("yes", "no"):
        return labels["speech"].lower() == "yes"
    if labels.get("subset") in (*SPEECH, *NO_SPEECH):
        return labels["subset"] in SPEECH
    return True if labels.get("text") else None


def has_pitch(labels: Mapping[str, str]) -> bool:
    """By the column `pitched` of a clip's manifest, else by its subset, else yes."""
    pitched = labels.get("pitched", "").lower()
    return pitched == "yes" if pitched in ("yes", "no") else labels.get("subset") not in UNPITCHED


def concept_sets(
    dataset: Dataset,
    kinds: Sequence[str],
    held_out: Sequence[str] = ("valid", "test"),
    limit: int | None = None,
    subsets: Sequence[str] = (),
) -> Sets:
    """Sounds of `subsets` (default: of all) that have concepts of these kinds; to train on are those of split `train`,
    at most `limit` of a subset and split. Of the splits held out there has to be one. A kind is one of `KINDS`, a
    column (`label`), a column of one subset (`esc10:label`), or `speech`.

    Raises:
        LabelError: an unknown kind, or one that no sound to train on has.
        AudioFileError: no clips of a split, or one that is missing.
    """
    columns = {kind: place_of(dataset, kind) for kind in kinds}
    wanted = list(dict.fromkeys(["label", "speech", "text", *(column for _, column in columns.values())]))

    def of(splits: Sequence[str]) -> list[LabelledSound]:
        return [
            replace(sound, labels=labels)
            for split in splits
            for sound in dataset.sounds(subsets or None, split, limit, wanted)
            if (labels := concepts_in(sound.labels, columns))
        ]

    train = of(["train"])
    for kind, (subset, column) in columns.items():
        if not any(kind in sound.labels for sound in train):
            places = subset or (", ".join((*SPEECH, *NO_SPEECH)) if kind == "speech" else f"the column {column}")
            raise LabelError(f"{dataset.folder}: no clips of split 'train' for {kind!r}; they would be in {places}")
    return train, of([split for split in held_out if dataset.has_split(split)] or held_out)


def place_of(dataset: Dataset, kind: str) -> tuple[str, str]:
    """The subset ("" for all) and column of a kind of concept. Raises LabelError for one that is unknown."""
    subset, colon, column = KINDS.get(kind, kind).rpartition(":")
    if kind not in KINDS and kind != "speech" and not colon and not dataset.has_column(column):
        known = ", ".join([*KINDS, "speech"])
        raise LabelError(f"there are no concepts of kind {kind!r}; there are {known}, and the columns of manifests")
    return subset, column


def concepts_in(labels: Mapping[str, str], columns: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    if is_impulse_response(labels):
        return {}
    found = {
        kind: labels.get(column, "")
        for kind, (subset, column) in columns.items()
        if kind != "speech" and subset in ("", labels["subset"])
    }
    if "speech" in columns and (speech := has_speech(labels)) is not None:
        found["speech"] = "yes" if speech else "no"
    return {kind: label for kind, label in found.items() if label}
