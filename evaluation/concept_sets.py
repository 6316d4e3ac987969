"""Which sounds tell of which concepts: those of the recordings' subsets, or of a CSV."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from evaluation.labels import LabelledSound, labelled_sounds
from hooks.errors import AudioSteerError

KINDS = {
    "sound": ("esc10", "label"),
    "keyword": ("keywords", "label"),
    "digit": ("digits", "label"),
    "speaker": ("digits", "speaker"),
}
"""Kinds of concept: the subset whose clips have one, and the column that says which."""
SPEECH, NO_SPEECH = (
    ("digits", "keywords", "ljspeech", "orders", "speech_misc"),
    ("esc10", "music", "noise_rir", "notes"),
)
"""Subsets of the kind `speech`, yes or no."""
ROOM = "rir"
"""Label of room impulse responses: they lie among the noises, and are no sounds to listen to."""

Sets = tuple[list[LabelledSound], list[LabelledSound]]
"""Sounds to train on, and those held out."""


class LabelError(AudioSteerError):
    """Labels that cannot be read, or that name a clip that is not there."""


def from_folder(
    audio: Path, kinds: Sequence[str], held_out: Sequence[str] = ("valid", "test"), limit: int | None = None
) -> Sets:
    """Sounds that have concepts of these `KINDS` (or `speech`); to train on are those of split `train`.

    At most `limit` of a subset and split.

    Raises:
        LabelError: an unknown kind, or one that no sound to train on has.
        AudioFileError: no clips of a split, or one that is not there.
    """
    known = [*KINDS, "speech"]
    if unknown := [kind for kind in kinds if kind not in known]:
        raise LabelError(f"there are no concepts of kind {unknown[0]!r}; there are {', '.join(known)}")

    def of(splits: Sequence[str]) -> list[LabelledSound]:
        return [
            replace(sound, labels=labels)
            for split in splits
            for sound in labelled_sounds(audio, split=split, limit=limit)
            if (labels := concepts_in(sound.labels, kinds))
        ]

    train = of(["train"])
    for kind in kinds:
        if not any(kind in sound.labels for sound in train):
            subsets = [KINDS[kind][0]] if kind in KINDS else [*SPEECH, *NO_SPEECH]
            raise LabelError(f"{audio}: no clips of split 'train' for {kind!r}; they would be in {', '.join(subsets)}")
    return train, of(held_out)


def is_room(labels: Mapping[str, str]) -> bool:
    return labels.get("label") == ROOM


def concepts_in(labels: Mapping[str, str], kinds: Sequence[str]) -> dict[str, str]:
    subset = labels["subset"]
    if is_room(labels):
        return {}
    found = {kind: labels.get(KINDS[kind][1], "") for kind in kinds if kind in KINDS and KINDS[kind][0] == subset}
    if "speech" in kinds and subset in (*SPEECH, *NO_SPEECH):
        found["speech"] = "yes" if subset in SPEECH else "no"
    return {kind: label for kind, label in found.items() if label}


def from_csv(path: Path, columns: Sequence[str] = ("label",), held_out: Sequence[str] = ("valid", "test")) -> Sets:
    """Sounds of a CSV with the columns `path` (relative to the CSV) and `columns`, each a kind of concept.

    An empty cell is no label. A column `split` counts as in a manifest; without one, every other file of each label of
    the first column is held out.

    Raises:
        LabelError: the CSV cannot be read, lacks a column, or names a file that is not there.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise LabelError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if not rows or not {"path", *columns} <= set(rows[0]):
        raise LabelError(f"{path}: needs rows with the columns path and {', '.join(columns)}")
    seen: Counter[str] = Counter()
    sets: Sets = ([], [])
    for row in rows:
        source = path.parent / (row["path"] or "")
        if not source.is_file():
            raise LabelError(f"{path}: names {row['path']!r}, and there is no such file")
        labels = {column: cell for column in columns if (cell := (row[column] or "").strip())}
        first = labels.get(columns[0], "")
        split = row["split"] if "split" in row else ("train", *held_out)[seen[first] % 2]
        seen[first] += 1
        if labels and split in ("train", *held_out):
            sets[split != "train"].append(LabelledSound(source, row["path"], labels))
    return sets
