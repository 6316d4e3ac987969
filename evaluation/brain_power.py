"""What the protocol finds in EEG with a known answer: `steer evaluate brain --simulate`.

Real features of real sound, and simulated EEG: a few features, drawn at random, each evoke a response with a kernel of
its own, in pink noise. How many of them are found, over the correlation that each response has with the EEG and over
the number of subjects, is the power of a study of that size. Beside it stand noise alone, in which nothing should be
found, and EEG that follows the envelope alone, in which features are found that explain nothing beyond it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from evaluation.brain import Findings, Study, protocol
from evaluation.brain_gain import baseline, gains
from evaluation.brain_study import Settings, Sounds
from evaluation.dataset import LabelledSound, read_sounds
from evaluation.eeg_simulation import PLANTED, TOLERANCE_S, R, answer, likeness, plant, responses, simulated
from evaluation.intervals import clustered_bootstrap, clustered_share
from evaluation.report import Progress, Report, Row
from hooks import Clip
from steer.steered import SteeredModel

SUBJECTS = (5, 10, 19)
LEVELS = (0.01, 0.02, 0.03, R)
"""Correlations of each planted response with the EEG."""
RUN_S, LEAST_S = 180.0, 60.0
NOISE, ENVELOPE, ANSWERS = "noise alone", "envelope and onset alone", "planted features"


def runs_of(sounds: Iterable[LabelledSound], sample_rate: int) -> dict[str, Clip]:
    """{run: clips one after the other}, each of 3 minutes or a little more; the last one of at least one."""
    runs: dict[str, Clip] = {}
    parts: list[Tensor] = []
    for _, clip in read_sounds(list(sounds)):
        parts.append(clip.mixed(1).resampled(sample_rate).waveform)
        if sum(part.shape[-1] for part in parts) >= RUN_S * sample_rate:
            runs[f"{len(runs) + 1}"] = Clip(torch.cat(parts, -1), sample_rate)
            parts = []
    if sum(part.shape[-1] for part in parts) >= LEAST_S * sample_rate:
        runs[f"{len(runs) + 1}"] = Clip(torch.cat(parts, -1), sample_rate)
    return runs


def development_of(runs: Sequence[str]) -> list[str]:
    """Two of five, as in the paper (6 of 15 minutes)."""
    return [run for index, run in enumerate(runs) if index % 5 in (0, 2)]


def evaluate(
    steered: SteeredModel,
    site: str,
    sounds: Sounds,
    settings: Settings,
    rounds: int = 5,
    progress: Progress = iter,
) -> Report:
    """A row for each simulation and number of subjects; `clips` has one for each round.

    Raises:
        BrainError: no feature fires often enough, or fewer than two runs of development and one of test.
    """
    names, tracks, _ = sounds.features(steered.saes[site], settings.features, settings.fires, settings.seed)
    runs = list(tracks)
    development = development_of(runs)
    plans = [(NOISE, 0.0), *((ANSWERS, r) for r in LEVELS), (ENVELOPE, R)]
    found: list[Row] = []
    for kind, r, index in progress([(kind, r, index) for kind, r in plans for index in range(rounds)]):
        rng = np.random.default_rng([settings.seed, index])
        planted = plant(rng.choice(len(names), min(PLANTED, len(names)), replace=False).tolist(), rng)
        if kind == ENVELOPE:
            evoked = responses(sounds.acoustics, plant(range(2), rng), sounds.rate)
            planted = []
        else:
            evoked = responses(tracks, planted, sounds.rate)
        everybody = simulated(evoked, max(SUBJECTS), r, sounds.rate, development, rng)
        alike_FP = likeness(tracks, planted, sounds.rate) if kind == ANSWERS else torch.zeros(len(names), 0)
        for subjects in SUBJECTS:
            study = first(everybody, subjects)
            result = protocol(study, tracks, settings.lags, settings.ridge)
            got = answer(result, planted if kind == ANSWERS else [], alike_FP)
            row: Row = {"simulated": kind, "r": r, "subjects": subjects, "round": index, **vars(got)}
            if r == R:
                beyond = beyond_of(study, tracks, sounds, result, settings)
                row["beyond"], row["planted beyond"] = len(beyond), len(beyond & {one.feature for one in planted})
            found.append(row)
    rows = [summary(kind, r, subjects, found) for kind, r in plans for subjects in SUBJECTS]
    about = {
        "model": steered.model.name,
        "site": site,
        "features": len(names),
        "rounds": rounds,
        "planted in each": PLANTED,
        "runs": {"dev": development, "test": [run for run in runs if run not in development]},
        "minutes of sound": round(sum(sounds.lengths_s.values()) / 60, 2),
        "lag counts as right within ms": round(1000 * TOLERANCE_S),
        "notes": ["the EEG is simulated: this is about the method, and says nothing about brains"],
    }
    return Report(f"What is found of {len(names)} features of {site} in simulated EEG", rows, found, about)


def beyond_of(
    study: Study, tracks: dict[str, Tensor], sounds: Sounds, result: Findings, settings: Settings
) -> set[int]:
    """Those of the features that were found which explain more than envelope and onset."""
    index = torch.nonzero(result.found_F)[:, 0]
    if not len(index):
        return set()
    some = {run: f_FT[index] for run, f_FT in tracks.items()}
    base = baseline(study, sounds.acoustics, settings.lags, settings.ridge)
    gain = gains(
        study,
        some,
        sounds.acoustics,
        result.r_FS[index],
        result.ridge,
        base,
        settings.lags,
        beside=settings.ridge,
        shifts=0,
    )
    return set(index[gain.beyond_F].tolist())


def first(study: Study, subjects: int) -> Study:
    """The first subjects of a study in which all have all runs."""
    everybody = tuple(range(subjects))
    return replace(
        study,
        subjects=study.subjects[:subjects],
        eeg={run: eeg_ST[:subjects] for run, eeg_ST in study.eeg.items()},
        present=dict.fromkeys(study.eeg, everybody),
    )


def summary(kind: str, r: float, subjects: int, found: Sequence[Row]) -> Row:
    """Means over rounds, which are resampled."""
    rows = [row for row in found if (row["simulated"], row["r"], row["subjects"]) == (kind, r, subjects)]
    rounds = [row["round"] for row in rows]
    hits = sum(row["found"] for row in rows)

    def mean(name: str) -> object:
        return clustered_bootstrap([float(row[name]) for row in rows], rounds)

    answers = kind == ANSWERS
    return {
        "simulated": kind,
        "r": r or None,
        "subjects": subjects,
        f"planted found, of {PLANTED}": mean("found") if answers else None,
        "of these with the right lag and sign": f"{sum(row['right'] for row in rows)} of {hits}" if answers else None,
        "others found": mean("others"),
        "of these like a planted one": (
            f"{sum(row['alike'] for row in rows)} of {sum(row['others'] for row in rows)}" if answers else None
        ),
        "rounds with others": clustered_share([row["others"] > 0 for row in rows], rounds),
        "found that explain more than envelope and onset": mean("beyond") if r == R else None,
        "of these planted": (
            f"{sum(row['planted beyond'] for row in rows)} of {sum(row['beyond'] for row in rows)}"
            if answers and r == R
            else None
        ),
    }
