"""`steer evaluate layers`: how well each layer of a model predicts a label, and what sparse codes of it cost.

After `ssl-sae-singing.txt`, section 3: each clip is the mean of a layer's frames, from which a linear probe predicts
the label; at some layers SAEs with fewer and fewer active features show what sparsity costs in reconstruction error and
in the probe's accuracy.

What differs from the paper: the probe is the convex optimum with a penalty chosen by cross-validation in groups
(`evaluation.label_probe`); layers for the sweep are chosen by that cross-validation, not on the clips held out; the
error is divided by the variance, so that layers and models can be compared; SAEs are trained on random stretches of the
clips; each number has an interval and is compared with shuffled labels, an untrained SAE and principal components. With
`paper` the paper's settings hold (clips of 5 s, Adam, 2048 features, the raw vectors), to compare with its numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from evaluation.dataset import LabelledSound
from evaluation.folds import folds_of
from evaluation.label_probe import chosen_strength, paper_probe, predictions
from evaluation.label_sets import LabelSets
from evaluation.nulls import Null, change_in_share, clip_weights, null_of, share_right, shuffled
from evaluation.passes import Kept
from evaluation.pooled import pooled_activations, pooled_crops
from evaluation.pooled_saes import (
    CROPS,
    DENSE,
    ROTATED,
    SAE_NAME,
    SPARSITIES,
    STEPS,
    Representation,
    divided_vectors,
    representations,
    train_sweep,
)
from evaluation.probing import interval
from evaluation.report import Interval, Progress, Report, Row
from hooks.model import AudioModel

PAPER_SECONDS, PAPER_WIDTH = 5.0, 2048
AT_CHANCE = "not distinguishable from chance"
BEST = "best"


@dataclass(frozen=True)
class Sweep:
    """At which sites SAEs are trained (none: the best by cross-validation and the last one), and how."""

    sites: Sequence[str] = ()
    sparsities: Sequence[float] = SPARSITIES
    width: int | None = None
    crops: int = CROPS
    seeds: int = 2
    steps: int = STEPS
    sounds: Sequence[LabelledSound] = ()
    """Clips of split `train` that SAEs are trained on; by default those of the label."""


@dataclass(frozen=True)
class Probed:
    """Which held-out clips [M] a probe predicts correctly from a representation, and the null."""

    right_M: np.ndarray
    null: Null | None
    strength: float | None


@dataclass(frozen=True)
class Probes:
    """Probes for the label of some clips, each fitted on the training clips and scored on the others.

    The penalty is chosen over `fold_N`; with `paper` the probe is the paper's, and fold 0 is its validation set.
    """

    sets: LabelSets
    fold_N: np.ndarray
    paper: bool
    seed: int

    def chosen(self, x_ND: np.ndarray) -> tuple[float, float]:
        """The penalty's strength, and the accuracy by cross-validation on the clips to train on."""
        return chosen_strength(x_ND[: len(self.sets.train)], self.sets.train_y, self.fold_N)

    def of(self, x_ND: np.ndarray, strength: float | None, nulls: int) -> Probed:
        """A probe on vectors of the training clips, then of those held out, and `nulls` probes on shuffled labels."""
        rng = np.random.default_rng(self.seed)
        drawn = [shuffled(self.sets.train_y, self.sets.train_groups, rng) for _ in range(nulls)]
        null = null_of([float(self.right(x_ND, y_N, strength).mean()) for y_N in drawn])
        return Probed(self.right(x_ND, self.sets.train_y, strength), null, strength)

    def right(self, x_ND: np.ndarray, y_N: np.ndarray, strength: float | None) -> np.ndarray:
        """Which held-out clips [M] a probe fitted on these labels predicts correctly."""
        train_ND, test_MD = np.split(x_ND, [len(self.sets.train)])
        if self.paper:
            return paper_probe(train_ND, y_N, test_MD, self.fold_N == 0, self.seed) == self.sets.held_out_y
        assert strength is not None
        return predictions(train_ND, y_N, test_MD, [strength])[0] == self.sets.held_out_y


def evaluate(
    model: AudioModel,
    sets: LabelSets,
    sites: Sequence[str],
    sweep: Sweep | None = None,
    *,
    nulls: int = 20,
    padding: bool = False,
    paper: bool = False,
    seed: int = 0,
    kept: Kept | None = None,
    progress: Progress = iter,
) -> Report:
    """A row for each site, and with a `sweep` one for each of its sites, sparsities and representations.

    `about` has the layers of the sweep, the strengths of the probes, and notes.

    Raises:
        EvaluationError: a clip that is too short, or whose activation is not finite.
        AudioFileError: a clip that cannot be read.
        TrainingError: vectors that an SAE cannot be trained on.
        MissingExtraError: scikit-learn is not installed.
    """
    options: dict[str, Any] = {"padding": padding, "kept": kept, "progress": progress}
    if paper:
        options |= {"first_s": PAPER_SECONDS, "fill": True, "padding": True}
    x = pooled_activations(model, [*sets.train, *sets.held_out], sites, **options)
    probes = Probes(sets, folds_of(sets.train_groups, sets.train_y, seed=seed), paper, seed)
    weights_XM = clip_weights(sets.held_out_groups, seed)
    rows: list[Row] = []
    dense: dict[str, Probed] = {}
    inner: dict[str, float] = {}
    for site in progress(list(sites)):
        strength, inner[site] = probes.chosen(x[site])
        dense[site] = probes.of(x[site], None if paper else strength, nulls)
        rows.append(row_of(site, Representation(DENSE, None, None, x[site]), dense[site], weights_XM))

    chosen = swept_sites(sites, inner, sweep) if sweep is not None else []
    if sweep is not None:
        vectors = sae_vectors(model, sweep, list(sweep.sounds) or sets.train, chosen, seed, paper, options)
        for site in progress(chosen):
            train_ND, watched_ND = vectors[site]
            swept = train_sweep(
                {site: train_ND},
                {site: watched_ND},
                sweep.sparsities,
                width=sweep.width or (PAPER_WIDTH if paper else None),
                seeds=sweep.seeds,
                seed=seed,
                paper=paper,
                steps=sweep.steps,
            )[site]
            for one in representations(x[site], train_ND, swept, seed):
                if one.name in (DENSE, ROTATED):  # a rotation does not change a linear probe
                    continue
                best = None if paper else probes.chosen(one.values)[0]
                found = probes.of(one.values, best, nulls if one.name == SAE_NAME else 0)
                rows.append(row_of(site, one, found, weights_XM, dense[site], x[site], len(sets.train)))
    about = {
        "model": model.name,
        **sets.about(),
        "sites of the sweep": chosen,
        "accuracy by cross-validation": {site: round(value, 3) for site, value in inner.items()},
        "strengths of the probes": {site: one.strength for site, one in dense.items()},
        "nulls": nulls,
        "settings of": "the paper" if paper else "AudioSteer",
        "intervals": "95 %, Bayesian bootstrap over the held-out clips, over groups where there are 5 or more",
    }
    title = f"Accuracy of a linear probe for {sets.label} on utterance vectors of {model.name}"
    return Report(f"{title}, {sets.confound}" if sets.confound else title, rows, [], about)


def swept_sites(sites: Sequence[str], inner: Mapping[str, float], sweep: Sweep) -> list[str]:
    """Those that are named; else the best by cross-validation, and the last."""
    return list(sweep.sites) or list(dict.fromkeys([max(sites, key=lambda site: inner[site]), sites[-1]]))


def sae_vectors(
    model: AudioModel,
    sweep: Sweep,
    sounds: Sequence[LabelledSound],
    chosen: Sequence[str],
    seed: int,
    paper: bool,
    options: Mapping[str, Any],
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{site: (vectors to train SAEs on, vectors of other clips)}: a fifth of the clips, in groups, is validation."""

    def whole(some: list[LabelledSound]) -> dict[str, np.ndarray]:
        return pooled_activations(model, some, chosen, **options)

    def crops(some: list[LabelledSound]) -> dict[str, np.ndarray]:
        more = {name: options[name] for name in ("kept", "progress")}
        return pooled_crops(model, some, chosen, sweep.crops, seed=seed, **more)

    return divided_vectors(sounds, whole, crops if sweep.crops and not paper else None, seed)


def row_of(
    site: str,
    one: Representation,
    found: Probed,
    weights_XM: np.ndarray,
    dense: Probed | None = None,
    x_ND: np.ndarray | None = None,
    first: int = 0,
) -> Row:
    accuracy = share_right(found.right_M, weights_XM)
    change: Interval | None = None
    error: Interval | None = None
    if dense is not None and x_ND is not None:
        change = change_in_share(found.right_M, dense.right_M, weights_XM)
        held_out = replace(one, values=one.values[first:], rebuilt=None if one.rebuilt is None else one.rebuilt[first:])
        if (error_X := held_out.error(x_ND[first:].astype(np.float64), weights_XM)) is not None:
            error = interval(error_X, len(found.right_M))
        one = held_out
    null = found.null
    return {
        "site": site,
        "vectors": one.name,
        "sparsity": None if one.sparsity is None else f"{one.sparsity:g} %",
        "active": one.active,
        "accuracy": accuracy,
        "to dense": change,
        "shuffled": null.mean if null else None,
        "shuffled, 95 %": null.p95 if null else None,
        "error / variance": error,
        "dead": one.dead,
        "remark": AT_CHANCE if null and null.reached_by(accuracy) else None,
    }
