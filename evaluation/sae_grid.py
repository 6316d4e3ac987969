"""`steer evaluate sae-grid`: SAEs of several sizes and penalties at one site, and what linear probes read from each.

As `latent-sae-control.txt` (arXiv 2510.23802, section 3): ReLU features divided by their root mean square, trained on
||x - x'||^2 + lambda ||f||_1, and softmax probes from features to pitch, loudness and brightness. The penalty is on the
divided features (before the division it could be made small by small weights, with no sparsity at all), so the paper's
values of lambda do not carry over: the grid is over (size, lambda), and results are shown over the sparsity that was
reached, the share of features that are 0.

Bins come from train frames. Frames of a clip are in one split. Beside each accuracy stand the majority class, a probe
on the activation itself (`x`), a random SAE of each size, and shuffled labels. Intervals are over clips.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from evaluation.config import EvaluationError
from evaluation.nulls import Null, clip_weights, null_of, random_sae
from evaluation.probing import interval
from evaluation.report import Interval, Progress, Report, Row
from evaluation.site_frames import LabelledFrames, bins_of
from hooks.errors import require
from steer.probes import Bins, Probe, fit_probe
from steer.sae import SAE
from steer.trainee import TrainConfig
from steer.training import measure, train_saes

SAE_ROW, RANDOM, DENSE, MAJORITY = "SAE", "random SAE", "x", "majority class"
PILOT = np.geomspace(1e-3, 30, 14)
"""Penalties of the short trainings that say which give what sparsity."""
PILOT_STEPS = 0.2
LEAST, MOST = 0.5, 0.999
"""Sparsity that the penalties chosen spread over."""
CLOSE = 0.02
"""The best SAE is the sparsest whose mean accuracy is at most this much below the highest."""


@dataclass(frozen=True)
class Training:
    """What all SAEs of the grid share; with `rescale` activations are scaled to a mean length of sqrt(width)."""

    steps: int = 3000
    batch_size: int = 4096
    lr: float = 1e-3
    rms_norm: bool = True
    rescale: bool = True
    seed: int = 0

    def config(self, size: int, penalty: float) -> TrainConfig:
        return TrainConfig(
            "relu",
            d_sae=size,
            rms_norm=self.rms_norm,
            rescale=self.rescale,
            sparsity=penalty,
            steps=self.steps,
            batch_size=self.batch_size,
            lr=self.lr,
            dead_after=max(1, self.steps * self.batch_size // 12),
            seed=self.seed,
        )


@dataclass(frozen=True)
class Reading:
    """What a probe got right of the test frames with a value [M], of which clips they are, and what chance gives."""

    right_M: np.ndarray
    clip_M: np.ndarray
    clips: int
    null: Null | None = None
    probe: Probe | None = field(default=None, repr=False)

    def accuracy(self, weights_XC: np.ndarray) -> Interval:
        """With half a clip right and half a clip wrong in the resamplings, so that it has a width also at 0 and 1."""
        clips = int((self.per_clip(1.0) > 0).sum())
        half_X2 = np.random.default_rng(clips).gamma(0.5, size=(len(weights_XC), 2)) * len(self.right_M) / clips
        half_X2[0] = 0
        right_X, all_X = (weights_XC @ self.per_clip(values) for values in (self.right_M, 1.0))
        return interval((right_X + half_X2[:, 1]) / (all_X + half_X2.sum(1)), clips)

    def change(self, other: Reading, weights_XC: np.ndarray) -> Interval:
        """The accuracy less another's, on the same frames with the same weights."""
        count_C = self.per_clip(1.0)
        difference_C = self.per_clip(self.right_M) - other.per_clip(other.right_M)
        return interval(weights_XC @ difference_C / (weights_XC @ count_C), int((count_C > 0).sum()))

    def per_clip(self, values_M: np.ndarray | float) -> np.ndarray:
        """The sum [C] over the frames of each clip."""
        weights_M = np.broadcast_to(np.asarray(values_M, dtype=np.float64), self.clip_M.shape)
        return np.bincount(self.clip_M, weights_M, minlength=self.clips)


@dataclass(frozen=True)
class Grid:
    """The report, and the SAE that is kept with the probes on its features."""

    report: Report
    best: SAE
    probes: Mapping[str, Probe]


def evaluate(
    train_ND: Tensor,
    probed: LabelledFrames,
    test: LabelledFrames,
    *,
    sizes: Sequence[int],
    penalties: Sequence[float] = (),
    valid: LabelledFrames | None = None,
    count: int = 5,
    training: Training = Training(),
    nulls: int = 1,
    max_iter: int = 100,
    progress: Progress = iter,
) -> Grid:
    """SAEs of all `sizes` and `penalties` (none: `count` that spread the sparsity, searched at the middle size).

    SAEs are trained on `train_ND`, probes on `probed`; both are asked about `test`, of other clips. Penalties and the
    SAE that is kept are chosen by `valid`; without it by `probed`, on which the probes were fitted.

    Raises:
        EvaluationError: a penalty below 0, or no attribute that differs.
        MissingExtraError: scikit-learn is not installed.
    """
    if any(penalty < 0 for penalty in penalties):
        raise EvaluationError(f"--lambdas: {min(penalties):g} is below 0")
    bins = classes_of(probed, test)
    sizes = sorted(set(sizes))
    choice = valid or probed
    chosen = sorted(set(penalties)) or spread(train_ND, choice.x_ND, sizes[len(sizes) // 2], count, training)
    saes: dict[tuple[int, float], SAE] = {}
    for size in progress(sizes):
        configs = [training.config(size, penalty) for penalty in chosen]
        found = train_saes(train_ND, configs, validation=test.x_ND, progress=False, device="cpu")
        saes |= {(size, penalty): sae for penalty, sae in zip(chosen, found, strict=True)}
    weights_XC = clip_weights(test.groups, training.seed)
    readings = Readings(probed, test, bins, nulls, training.seed, max_iter)
    dense = readings.of(probed.x_ND, test.x_ND)
    rows = [row_of(DENSE, None, None, None, dense, dense, weights_XC)]
    rows.append(row_of(MAJORITY, None, None, None, readings.majority(), dense, weights_XC))
    mean_D = train_ND.mean(0).numpy()
    probes_of: dict[tuple[int, float], dict[str, Probe]] = {}
    scores: dict[tuple[int, float], tuple[float, float]] = {}
    jobs = [*((size, None) for size in sizes), *saes]
    for size, penalty in progress(jobs):
        sae = random_sae(saes[size, chosen[0]], mean_D, training.seed) if penalty is None else saes[size, penalty]
        read = readings.of(encoded(sae, probed.x_ND), encoded(sae, test.x_ND))
        kind = RANDOM if penalty is None else SAE_ROW
        # what an untrained decoder makes of features says nothing
        metrics = measure(sae, test.x_ND) | ({"explained_variance": None} if penalty is None else {})
        rows.append(row_of(kind, size, penalty, metrics, read, dense, weights_XC))
        if penalty is not None:
            probes = {name: one.probe for name, one in read.items() if one.probe is not None}
            features_NF = encoded(sae, choice.x_ND)
            known = [probe.accuracy(features_NF, choice.values[name]) for name, probe in probes.items()]
            probes_of[size, penalty] = probes
            scores[size, penalty] = float(np.mean(known)), float((features_NF == 0).float().mean())
    key = best_of(scores)
    about = {
        "lambdas": "given" if penalties else "searched",
        "kept": {"features": key[0], "lambda": key[1]},
        "chosen by": "valid" if valid else "the frames of the probes",
        "frames": {"SAEs": len(train_ND), "probes": len(probed.x_ND), "test": len(test.x_ND)},
        "test clips": len(np.unique(test.clip_N)),
        "classes": {name: len(one.centres) for name, one in bins.items()},
        "shuffled fits": nulls,
    }
    report = Report("Linear probes on SAEs of several sizes and penalties", rows, [], about)
    return Grid(report, saes[key], probes_of[key])


def classes_of(probed: LabelledFrames, test: LabelledFrames) -> dict[str, Bins]:
    """The classes of each attribute that has two or more among the frames of probes, and values among test frames.

    Raises:
        EvaluationError: there is none.
    """
    found = {}
    for name, values_N in probed.values.items():
        known_N = values_N[values_N.isfinite()]
        if len(known_N) and (known_N != known_N[0]).any() and test.values[name].isfinite().any():
            one = bins_of(name, values_N)
            if len(one.classes(known_N).unique()) > 1:
                found[name] = one
    if not found:
        raise EvaluationError("neither pitch nor loudness nor brightness differs between the frames")
    return found


def fewer(frames: LabelledFrames, count: int) -> LabelledFrames:
    """At most `count` of the frames, evenly spread."""
    rows = torch.linspace(0, len(frames.x_ND) - 1, min(count, len(frames.x_ND))).round().long()
    values = {name: values_N[rows] for name, values_N in frames.values.items()}
    return LabelledFrames(frames.x_ND[rows], values, frames.clip_N[rows.numpy()], frames.groups)


def encoded(sae: SAE, x_ND: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([sae.encode(chunk_ND) for chunk_ND in x_ND.split(4096)])


def spread(train_ND: Tensor, other_MD: Tensor, size: int, count: int, training: Training) -> list[float]:
    """Penalties that give sparsities from 0.5 to 0.999, the shares that fire being in a geometric row.

    Short trainings say which penalty gives which sparsity on other frames; beyond what they reach it is cut to that.
    """
    short = replace(training, steps=max(1, round(PILOT_STEPS * training.steps)))
    configs = [short.config(size, float(penalty)) for penalty in PILOT]
    saes = train_saes(train_ND, configs, validation=other_MD, progress=False, device="cpu")
    fires = np.minimum.accumulate([max(sae.info.metrics["l0"], 1e-6) / size for sae in saes])
    wanted = np.geomspace(1 - LEAST, 1 - MOST, count)
    # np.interp wants rising places: the share that fires falls with the penalty
    found = np.exp(np.interp(-np.log(wanted), -np.log(fires), np.log(PILOT)))
    return sorted({float(f"{penalty:.3g}") for penalty in found})


@dataclass(frozen=True)
class Readings:
    """Fits probes on representations of the frames of `probed`, and asks about those of `test`."""

    probed: LabelledFrames
    test: LabelledFrames
    bins: Mapping[str, Bins]
    nulls: int
    seed: int
    max_iter: int

    def of(self, f_NF: Tensor, test_MF: Tensor) -> dict[str, Reading]:
        """{attribute: reading} of representations [N, F] and [M, F]."""
        return {name: self.one(name, f_NF, test_MF) for name in self.bins}

    def one(self, name: str, f_NF: Tensor, test_MF: Tensor) -> Reading:
        bins, values_N, values_M = self.bins[name], self.probed.values[name], self.test.values[name]
        known_N, known_M = values_N.isfinite(), values_M.isfinite()
        truth_M, test_MF = bins.classes(values_M[known_M]), test_MF[known_M]

        def fitted(values: Tensor) -> tuple[Probe, np.ndarray]:
            probe = quietly_fitted(f_NF[known_N], values, bins, self.max_iter)
            return probe, (probe.predict(test_MF) == truth_M).numpy()

        probe, right_M = fitted(values_N[known_N])
        generator = torch.Generator().manual_seed(self.seed)
        shuffles = [torch.randperm(int(known_N.sum()), generator=generator) for _ in range(self.nulls)]
        null = null_of([float(fitted(values_N[known_N][order])[1].mean()) for order in shuffles])
        return Reading(right_M, self.test.clip_N[known_M.numpy()], self.test.clips, null, probe)

    def majority(self) -> dict[str, Reading]:
        """Of always saying the most frequent class of the frames that probes are fitted on."""
        found = {}
        for name, bins in self.bins.items():
            values_N, values_M = self.probed.values[name], self.test.values[name]
            known_M = values_M.isfinite()
            most = torch.bincount(bins.classes(values_N[values_N.isfinite()])).argmax()
            right_M = (bins.classes(values_M[known_M]) == most).numpy()
            found[name] = Reading(right_M, self.test.clip_N[known_M.numpy()], self.test.clips)
        return found


def quietly_fitted(f_NF: Tensor, values_N: Tensor, bins: Bins, max_iter: int) -> Probe:
    """A probe, also where the number of iterations did not suffice to the last digit."""
    require("sklearn", "eval")
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return fit_probe(f_NF, values_N, bins, max_iter=max_iter)


def row_of(
    kind: str,
    size: int | None,
    penalty: float | None,
    metrics: Mapping[str, float | None] | None,
    read: Mapping[str, Reading],
    dense: Mapping[str, Reading],
    weights_XC: np.ndarray,
) -> Row:
    metrics = metrics or {}
    l0 = metrics.get("l0")
    row: Row = {
        "probe on": kind,
        "features": size,
        "lambda": penalty,
        "sparsity": None if l0 is None or not size else 1 - l0 / size,
        "L0": l0,
        "explained variance": metrics.get("explained_variance"),
        "dead share": metrics.get("dead_share"),
    }
    chance = []
    for name, one in read.items():
        accuracy = one.accuracy(weights_XC)
        row[name] = accuracy
        row[f"{name}, less x"] = None if kind == DENSE else one.change(dense[name], weights_XC)
        row[f"{name}, shuffled"] = one.null.mean if one.null else None
        if one.null and one.null.reached_by(accuracy):
            chance.append(name)
    return row | {"not distinguishable from chance": ", ".join(chance) or None}


def best_of(scores: Mapping[tuple[int, float], tuple[float, float]]) -> tuple[int, float]:
    """(size, penalty) of the sparsest SAE whose mean accuracy is at most `CLOSE` below the highest; `scores` are
    (mean accuracy, sparsity)."""
    highest = max(accuracy for accuracy, _ in scores.values())
    close = {key: sparsity for key, (accuracy, sparsity) in scores.items() if accuracy >= highest - CLOSE}
    return max(close, key=lambda key: close[key])
