"""Intervals, permutation nulls and untrained controls of a result.

Null: the labels of the training clips are permuted (`shuffled`), the same probe is fitted on them and scored on the
real labels of the held-out clips. Where a label is constant in each group (a speaker, a recording), labels are permuted
among whole groups: the clips of a group are alike, and permuting them one by one would make chance too low.

Controls of an SAE: the same SAE with its first weights (`random_sae`), and as many principal components as it has
active features (`pca`), as they are or rotated (`rotation`).

Intervals are of the Bayesian bootstrap over clips, or over groups where there are 5 or more (`clip_weights`); two
representations are compared on the same clips with the same weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from evaluation.probing import ROUNDS, interval, resampled
from evaluation.report import Interval, Share
from hooks.random_numbers import seeded
from steer.sae import SAE

ENOUGH_GROUPS = 5
"""From here on intervals are over groups."""


@dataclass(frozen=True)
class Null:
    """What chance gives: the mean and the 95th percentile of what shuffled labels gave, and their number."""

    mean: float
    p95: float
    count: int

    def reached_by(self, result: Interval) -> bool:
        """Whether the result is at chance: its interval touches the null's 95th percentile."""
        return bool(result.low <= self.p95)


def null_of(values: Sequence[float]) -> Null | None:
    """None where there are none."""
    if not len(values):
        return None
    return Null(float(np.mean(values)), float(np.percentile(values, 95)), len(values))


def shuffled(labels_N: np.ndarray, groups_N: Sequence[str], rng: np.random.Generator) -> np.ndarray:
    """The labels [N] permuted: among groups where each group has one label, else among clips. A clip of group "" is a
    group by itself."""
    names_N = np.array([group or f"clip {index}" for index, group in enumerate(groups_N)])
    groups, first_G, group_of_N = np.unique(names_N, return_index=True, return_inverse=True)
    label_of_G = labels_N[first_G]
    if len(groups) == len(labels_N) or (label_of_G[group_of_N] != labels_N).any():
        return labels_N[rng.permutation(len(labels_N))]
    return label_of_G[rng.permutation(len(groups))][group_of_N]


def clip_weights(groups_N: Sequence[str], seed: int = 0, rounds: int = ROUNDS) -> np.ndarray:
    """[1 + rounds, N]: weights of the clips in each resampling; the first row is ones, the estimate itself."""
    grouped = len({group for group in groups_N if group}) >= ENOUGH_GROUPS
    return resampled(list(groups_N) if grouped else [""] * len(groups_N), rounds, seed).clips_XN


def half_clips(weights_XN: np.ndarray) -> np.ndarray:
    """[X, 2]: random weights of two half clips that are added to each resampling, and not to the estimate (Jeffreys'
    prior): an interval then has a width also where all clips agree."""
    rng = np.random.default_rng(weights_XN.shape[1])
    return rng.gamma(0.5, size=(len(weights_XN), 2)) * (np.arange(len(weights_XN)) > 0)[:, None]


def share_right(right_N: np.ndarray, weights_XN: np.ndarray) -> Share:
    """Accuracy with its interval; half a clip that is wrong and half a clip that is right are added."""
    half_X2 = half_clips(weights_XN)
    share_X = (weights_XN @ right_N + half_X2[:, 1]) / (weights_XN.sum(1) + half_X2.sum(1))
    return interval(share_X, len(right_N), Share)


def change_in_share(right_N: np.ndarray, before_N: np.ndarray, weights_XN: np.ndarray) -> Interval:
    """The difference of two accuracies on the same clips, with its interval; half a clip that is lost and half a clip
    that is gained are added."""
    half_X2 = half_clips(weights_XN)
    change_N = np.asarray(right_N, dtype=np.float64) - before_N
    change_X = weights_XN @ change_N + half_X2[:, 1] - half_X2[:, 0]
    return interval(change_X / (weights_XN.sum(1) + half_X2.sum(1)), len(right_N))


def random_sae(like: SAE, mean_D: np.ndarray, seed: int = 0) -> SAE:
    """An SAE of the same activation, k and width with its first, untrained weights, that centres on the mean."""
    with seeded(seed):
        sae = SAE(like.d_in, like.d_sae, like.activation, like.k, rms_norm=like.rms_norm, normalize=like.normalize)
    with torch.no_grad():
        sae.b_dec.copy_(torch.from_numpy(np.asarray(mean_D)))
    return sae.eval().requires_grad_(False)


@dataclass(frozen=True)
class Components:
    """Principal components: `mean` [D] and `axes` [k, D], of falling variance."""

    mean: np.ndarray
    axes: np.ndarray

    def __call__(self, x_ND: np.ndarray) -> np.ndarray:
        """Coordinates [N, k]."""
        return (x_ND - self.mean) @ self.axes.T


def pca(x_ND: np.ndarray, count: int) -> Components:
    """The first `count` components of vectors [N, D], or as many as there are."""
    x_ND = np.asarray(x_ND, dtype=np.float64)
    mean_D = x_ND.mean(0)
    _, values, axes = np.linalg.svd(x_ND - mean_D, full_matrices=False)
    there = int((values > values[:1] * 1e-9).sum())
    return Components(mean_D, axes[: min(count, there)])


def rotation(size: int, seed: int = 0) -> np.ndarray:
    """A random rotation [size, size]: what is spread over all axes, with nothing lost."""
    normal = np.random.default_rng(seed).normal(size=(size, size))
    q, r = np.linalg.qr(normal)
    return q * np.sign(np.diag(r))
