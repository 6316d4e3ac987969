"""What the Features tab says of an atlas: a searchable table, one feature in words, and its top clips to play."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evaluation.atlas import Atlas, Match, Meaning
from hooks import AudioFileError, Clip, write_clip
from hooks.clip import audio_info, read_blocks

CLEAR = 0.05
"""A feature tells a label if its AUROC is so far above chance (`Concept.chance`): of the many labels one in twenty is
above it by chance alone, mostly by less than this."""
FEW = 10
"""With fewer clips of a label than this, that is said beside its AUROC."""
EXCERPT_S = 2.0
FADE_S = 0.01

ORDERS: dict[str, Callable[[Atlas, Tensor], Tensor]] = {
    "clearest label": lambda atlas, above_F: above_F,
    "density": lambda atlas, above_F: atlas.density,
    "max": lambda atlas, above_F: atlas.max,
}
"""What the table can be sorted by, the highest first."""


# --- the table ---


def table(atlas: Atlas, query: str = "", order: str = "clearest label", top: int = 50) -> list[dict[str, Any]]:
    """A row for each feature that a query finds, with the labels that it tells.

    A number finds that feature. Other text finds the features that tell a label with it in its name, or have one of
    their peaks in a clip with it in its name. Silent features are found by their number only.
    """
    text = query.strip().lower()
    return [row_of(atlas, feature, text) for feature in found(atlas, text, order)[:top]]


def found(atlas: Atlas, text: str, order: str) -> list[int]:
    if text.isdecimal():
        return [feature for feature in range(atlas.d_sae) if str(feature) == text]
    named_C = torch.tensor([text in concept.name.lower() for concept in atlas.concepts], dtype=torch.bool)
    above_CF = atlas.above_chance()[named_C]
    # without labels, those that peak highest, as `Atlas.clearest`
    above_F = above_CF.amax(0) if len(above_CF) else atlas.max
    # the last one stands for no peak, whose index is -1
    named_N = torch.tensor([*(text in clip.lower() for clip in atlas.clips), False])
    matches_F = named_N[atlas.peak_clip.long()].any(1)
    if len(above_CF):
        matches_F |= above_F >= CLEAR
    features = (matches_F & (atlas.density > 0)).nonzero()[:, 0]
    order_F = ORDERS[order](atlas, above_F)[features]
    return features[order_F.argsort(descending=True, stable=True)].tolist()


def row_of(atlas: Atlas, feature: int, text: str = "") -> dict[str, Any]:
    """One row; labels with `text` in their name come first."""
    one = atlas.feature(feature, len(atlas.concepts))
    labels = sorted(told(one), key=lambda match: text not in match.label.lower())
    return {
        "feature": feature,
        "frames (%)": round(100 * one.density, 2),
        "mean": round(one.mean, 4),
        "max": round(one.max, 2),
        "tells: AUROC (chance)": "\n".join(label_text(match) for match in labels[:3]),
        "highest in": place_text(one.peaks[0].clip, one.peaks[0].at_s) if one.peaks else "silent",
    }


def told(one: Meaning) -> list[Match]:
    """The labels that a feature tells, the clearest first."""
    return [match for match in one.labels if one.density and match.auroc - match.chance >= CLEAR]


def label_text(match: Match) -> str:
    return f"{match.label} {match.auroc:.2f} ({match.chance:.2f})"


def place_text(clip: str, at_s: float | None) -> str:
    return clip if at_s is None else f"{clip} at {at_s:.2f} s"


# --- one feature in words ---


def about(atlas: Atlas, feature: int) -> str:
    """What is known of a feature, in a few sentences.

    Raises:
        EditError: no such feature.
    """
    one = atlas.feature(feature, len(atlas.concepts))
    if not one.density:
        return f"Feature {feature} never fires in the {len(atlas.clips)} clips of this atlas: nothing is known of it."
    first = one.peaks[0]
    sentences = [
        f"Feature {feature} fires in {100 * one.density:.2g} % of the frames of {len(atlas.clips)} clips, "
        f"and most in {place_text(first.clip, first.at_s)} ({first.value:.3g})."
    ]
    subsets = Counter(peak.clip.partition("/")[0] for peak in one.peaks if "/" in peak.clip).most_common()
    if len(one.peaks) > 1 and subsets:
        where = ", ".join(f"{subset} ({count})" for subset, count in subsets)
        sentences.append(f"Its {len(one.peaks)} highest peaks are in {where}.")
    return " ".join([*sentences, *label_sentences(one, atlas.d_sae)])


def label_sentences(one: Meaning, d_sae: int) -> list[str]:
    """Which label it tells, and how far that is beyond chance."""
    if not one.labels:
        return ["The atlas knows no labels, or too few clips of each."]
    best = one.labels[0]
    beside = f"AUROC {best.auroc:.2f}; with shuffled labels the best of all {d_sae} features has {best.chance:.2f}"
    if best.auroc <= best.chance:
        return [f"It tells no label better than chance; the nearest is {best.label} ({beside})."]
    if best.auroc - best.chance < CLEAR:
        return [f"It tells no label clearly; the nearest, {best.label}, may be luck ({beside})."]
    kind = best.label.partition(":")[0]
    other = "without" if kind == "interval" else f"with another {kind}"
    sentences = [
        f"It is higher with {best.label} than {other} in {100 * best.auroc:.0f} % of pairs of clips ({beside})."
    ]
    if best.positives < FEW:
        sentences.append(f"Only {best.positives} clips have that label.")
    others = told(one)[1:4]
    if others:
        sentences.append(f"It also tells {', '.join(f'{m.label} ({m.auroc:.2f}; {m.chance:.2f})' for m in others)}.")
    return sentences


# --- its top clips ---


@dataclass(frozen=True)
class Excerpt:
    """Where a feature peaks, and a file to hear it: `path` of a stretch that starts `start_s` into the clip.

    `at_s` is the moment of the peak in the clip, None where the time is not known. Without a file, `missing` says why.
    """

    clip: str
    at_s: float | None
    value: float
    start_s: float = 0.0
    path: Path | None = None
    missing: str = ""


def top_clips(atlas: Atlas, feature: int, audio: Path | None, folder: Path, top: int = 10) -> list[Excerpt]:
    """The highest peaks of a feature, with about two seconds around each written into `folder`.

    `audio` is the folder in which the atlas's names of clips begin; nothing outside it is read, whatever they are.

    Raises:
        EditError: no such feature.
        AudioFileError: an excerpt cannot be written.
    """
    excerpts = []
    for rank, peak in enumerate(atlas.feature(feature, labels=0).peaks[:top]):
        try:
            sound, start_s = excerpt(inside(audio, peak.clip), peak.at_s or 0.0)
        except AudioFileError:
            missing = "the recordings are not here" if audio is None else "not among the recordings here"
            excerpts.append(Excerpt(peak.clip, peak.at_s, peak.value, missing=missing))
            continue
        path = folder / f"feature-{feature}-{rank}.wav"
        write_clip(sound, path, force=True)
        excerpts.append(Excerpt(peak.clip, peak.at_s, peak.value, start_s, path))
    return excerpts


def inside(audio: Path | None, name: str) -> Path:
    """The file of that name in a folder, all links followed.

    Raises:
        AudioFileError: there is no folder, or no such file in it.
    """
    try:
        root = audio.resolve() if audio is not None else None
        path = (root / name).resolve() if root is not None else None
    except (OSError, ValueError, RuntimeError) as error:  # a name with a zero byte, links that go round
        raise AudioFileError(f"{name!r} is not the name of a file") from error
    if root is None or path is None or root not in path.parents or not os.path.isfile(path):
        raise AudioFileError(f"{name!r} is not a file in the folder of recordings")
    return path


def excerpt(source: Path, at_s: float) -> tuple[Clip, float]:
    """The stretch of a sound file around a moment, and where it starts (s).

    Raises:
        AudioFileError: the sound cannot be read.
    """
    info = audio_info(source)
    count = min(info.frames, round(EXCERPT_S * info.sample_rate))
    start = min(max(0, round(at_s * info.sample_rate) - count // 2), info.frames - count)
    waveform = torch.cat(list(read_blocks(info, count, start=start, end=start + count)), dim=1)
    fade = min(count // 2, round(FADE_S * info.sample_rate))
    # a cut in the middle of a sound clicks
    ramp = torch.linspace(0, 1, fade)
    waveform[:, :fade] *= ramp if start else 1
    waveform[:, count - fade :] *= ramp.flip(0) if start + count < info.frames else 1
    return Clip(waveform, info.sample_rate), start / info.sample_rate
