"""`steer evaluate acoustics`: how often requested changes of loudness, brightness and pitch are met, and what drifts.

Every clip is edited through the codec and measured against the codec's plain round trip. Beside each attribute stands a
control: the same strengths along random directions of the same length.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evaluation.data import labelled_clips
from evaluation.goals import as_rows, reach, shifts
from evaluation.report import Report, Row, Share, bootstrap
from hooks import Clip
from steer.acoustics import change, measure
from steer.calibrate import TOLERANCE, error_of
from steer.steered import SteeredModel
from steer.vectors import ControlVector

REQUESTS: dict[str, tuple[float, ...]] = {
    "loudness": (-9.0, -6.0, -3.0, 3.0, 6.0),
    "brightness": (-30.0, -15.0, 20.0, 40.0),
    "pitch": (-2.0, -1.0, 1.0, 2.0),
}
"""dB, % of the centroid, semitones."""
UNITS = {"loudness": "dB", "brightness": "%", "pitch": "cents"}
SUBSETS = ("notes", "singing", "ljspeech", "digits")


def requests_for(name: str, attribute: str, count: int) -> list[float]:
    """`count` of the requests for a clip, drawn by its name: the same in every run."""
    rng = np.random.default_rng(zlib.crc32(f"{name} {attribute}".encode()))
    values = REQUESTS[attribute]
    return [float(value) for value in rng.choice(values, min(count, len(values)), replace=False)]


def in_cents(changes: Mapping[str, float | None]) -> dict[str, float | None]:
    pitch = changes["pitch"]
    return {**changes, "pitch": None if pitch is None else 100 * pitch}


def random_like(vector: ControlVector, decoder: torch.Tensor, seed: int) -> ControlVector:
    """A random direction whose effect on the activation is as long as the vector's."""
    noise = torch.randn(len(vector.vector), generator=torch.Generator().manual_seed(seed))
    return replace(vector, vector=noise * ((vector.vector @ decoder).norm() / (noise @ decoder).norm()))


def edit_clip(
    steered: SteeredModel,
    vectors: Mapping[str, ControlVector],
    clip: Clip,
    subset: str,
    attribute: str,
    request: float,
    seed: int,
) -> Row:
    """One edit and its control, as a row of measurements."""
    result = reach(steered, vectors, clip, {attribute: request})
    before, after = result.acoustics
    measured = change(before, after)
    sae = next(iter(steered.saes.values()))
    decoder = sae.W_dec.detach()  # type: ignore[attr-defined]
    strengths = result.calibration.strengths
    random = {name: random_like(vectors[name], decoder, seed + index) for index, name in enumerate(strengths)}
    model = steered.model
    with torch.no_grad(), steered.edit(*shifts(random, strengths)):
        shaken = model.run(as_rows(model, clip)).flatten(0, 1).float()  # type: ignore[arg-type]
    control = change(before, measure(shaken, result.before.sample_rate, pitch=attribute == "pitch"))
    return {
        "clip": clip.name,
        "subset": subset,
        "attribute": attribute,
        "request": request,
        **in_cents(measured),
        "met": error_of(attribute, request, measured[attribute]) <= 1.0,
        "measurable": measured[attribute] is not None,
        "control_met": error_of(attribute, request, control[attribute]) <= 1.0,
        "strengths": strengths,
        "trials": result.calibration.trials,
    }


def summary(clips: Sequence[Row]) -> list[Row]:
    """Per attribute and subset: how many were met, and the median drift of the rest."""
    rows = []
    for attribute in REQUESTS:
        for subset in (*dict.fromkeys(row["subset"] for row in clips), "all"):
            chosen = [row for row in clips if row["attribute"] == attribute and subset in (row["subset"], "all")]
            usable = [row for row in chosen if row["measurable"]]
            if not usable:
                continue
            row: Row = {
                "attribute": attribute,
                "clips": subset,
                "edits": len(usable),
                "met": share([row["met"] for row in usable]),
                "control met": share([row["control_met"] for row in usable]),
            }
            for other in REQUESTS:
                drift = [abs(row[other]) for row in usable if row[other] is not None] if other != attribute else []
                row[f"{other} drift ({UNITS[other]})"] = bootstrap(drift, np.median) if drift else None
            rows.append(row)
    return rows


def share(met: Sequence[bool]) -> Share:
    return Share(*astuple(bootstrap(met)))


def evaluate(
    steered: SteeredModel,
    vectors: Mapping[str, ControlVector],
    audio: Path,
    *,
    split: str = "test",
    subsets: Sequence[str] = SUBSETS,
    clips_per_subset: int = 40,
    requests: int = 2,
    attributes: Iterable[str] = REQUESTS,
    progress: Any = iter,
) -> Report:
    """Edit clips of a split and measure; clips whose pitch cannot be measured do not count for pitch.

    Raises:
        AudioFileError: no clips of that split.
    """
    jobs = []
    for subset, clip in labelled_clips(audio, subsets, split, clips_per_subset):
        for attribute in attributes:
            jobs += [(subset, clip, attribute, request) for request in requests_for(clip.name, attribute, requests)]
    rows = [
        edit_clip(steered, vectors, clip, subset, attribute, request, seed)
        for seed, (subset, clip, attribute, request) in enumerate(progress(jobs))
    ]
    about = {"model": steered.model.name, "split": split, "tolerance": TOLERANCE}
    return Report("Requested changes met, against the codec's plain round trip", summary(rows), rows, about)
