"""Informativeness and completeness: how well factors are predicted from a representation, and from how few dimensions.

After Eastwood and Williams (ICLR 2018): a Lasso regression for each factor, whose absolute weights R [N, F] show which
of N dimensions predict a factor. Completeness of factor j is 1 + sum_i p_ij ln p_ij / ln N with p_ij = R_ij /
sum_i R_ij: 1 for a single dimension, 0 for equal weights on all. The base ln N makes it grow with dimensions that
are never used; the effective number of dimensions, exp(H_j), does not.

Informativeness is R2 on clips that the regression was not fitted on. In-sample, as the paper on singing has it
(`ssl-sae-singing.txt`, section 4.2), 2048 dimensions of noise predict a factor of 400 clips with R2 = 0.22. A factor
that is not predicted has no completeness (None): its weights are those of noise, and where they are all 0 the paper's
formula gives 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hooks.errors import require

ALPHA = 0.1
"""The Lasso's penalty, on standardised dimensions and factors, as in the paper's code."""
MAX_ITER = 10_000
ALPHAS = 15
"""Penalties that are tried where one is chosen: from the smallest that leaves no dimension to 1 % of it."""
CONSTANT = 1e-6
"""A dimension whose deviation is less than this share of the largest one's is constant."""
TINY = 1e-12
"""Of the paper's formula."""


class Lassos:
    """Lasso regressions of several factors on the same standardised rows, which share their Gram matrix."""

    def __init__(self, x_MN: np.ndarray, f_MF: np.ndarray) -> None:
        x_MN, f_MF = np.asarray(x_MN, dtype=np.float64), np.asarray(f_MF, dtype=np.float64)
        self.mean_N, std_N = x_MN.mean(0), x_MN.std(0)
        self.live_N = std_N > CONSTANT * max(float(std_N.max(initial=0)), 1e-300)
        self.std_N = np.where(self.live_N, std_N, 1.0)
        self.mean_F, std_F = f_MF.mean(0), f_MF.std(0)
        self.std_F = np.where(std_F > 0, std_F, 1.0)
        self.x_ML = np.asfortranarray(((x_MN - self.mean_N) / self.std_N)[:, self.live_N])
        self.y_MF = (f_MF - self.mean_F) / self.std_F
        self.gram_LL, self.xy_LF = self.x_ML.T @ self.x_ML, self.x_ML.T @ self.y_MF

    def path(self, factor: int, alphas: np.ndarray) -> np.ndarray:
        """Weights [N, A] of the standardised dimensions for penalties in falling order."""
        weights_NA = np.zeros((len(self.live_N), len(alphas)))
        xy_L = np.ascontiguousarray(self.xy_LF[:, factor])
        if not self.live_N.any() or np.abs(xy_L).max() <= alphas[-1] * len(self.x_ML):
            return weights_NA  # the penalty leaves no dimension
        path = require("sklearn.linear_model", "eval").lasso_path
        weights_NA[self.live_N] = path(
            self.x_ML,
            self.y_MF[:, factor],
            alphas=np.asarray(alphas, dtype=np.float64),
            precompute=self.gram_LL,
            Xy=xy_L,
            max_iter=MAX_ITER,
            check_input=False,
        )[1]
        return weights_NA

    def largest_alpha(self, factor: int) -> float:
        """The smallest penalty that leaves no dimension."""
        return float(np.abs(self.xy_LF[:, factor]).max(initial=0)) / len(self.x_ML)

    def predicted(self, x_MN: np.ndarray, weights_NA: np.ndarray, factor: int) -> np.ndarray:
        """[M, A], in the factor's own unit."""
        standard_MN = (np.asarray(x_MN, dtype=np.float64) - self.mean_N) / self.std_N
        return self.mean_F[factor] + self.std_F[factor] * (standard_MN @ weights_NA)


@dataclass(frozen=True)
class Fit:
    """Of a representation: absolute weights [N, F] fitted on all clips, and predictions [M, F] of each clip by a
    regression that it had no part in."""

    weights_NF: np.ndarray
    predicted_MF: np.ndarray
    f_MF: np.ndarray

    def r2(self, weights_XM: np.ndarray | None = None) -> np.ndarray:
        """Held-out R2 [X, F], for each row of clip weights."""
        return r2(self.f_MF, self.predicted_MF, weights_XM)


def fit(x_MN: np.ndarray, f_MF: np.ndarray, fold_M: np.ndarray, alpha: float | None = ALPHA, seed: int = 0) -> Fit:
    """Regressions of factors [M, F] on a representation [M, N]; `fold_M` says which clips are predicted together.

    Without an `alpha` the penalty of each regression is chosen by folds inside the clips that it is fitted on.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """

    def weights_of(lassos: Lassos, rows: np.ndarray, factor: int) -> np.ndarray:
        chosen = alpha if alpha is not None else chosen_alpha(x_MN[rows], f_MF[rows, factor], lassos, factor, seed)
        return lassos.path(factor, np.array([chosen]))

    factors = range(f_MF.shape[1])
    predicted_MF = np.zeros(f_MF.shape)
    for fold in np.unique(fold_M):
        rows, test = np.flatnonzero(fold_M != fold), np.flatnonzero(fold_M == fold)
        lassos = Lassos(x_MN[rows], f_MF[rows])
        for factor in factors:
            weights_N1 = weights_of(lassos, rows, factor)
            predicted_MF[test, factor] = lassos.predicted(x_MN[test], weights_N1, factor)[:, 0]
    rows = np.arange(len(x_MN))
    lassos = Lassos(x_MN, f_MF)
    weights_NF = np.stack([np.abs(weights_of(lassos, rows, factor)[:, 0]) for factor in factors], axis=1)
    return Fit(weights_NF, predicted_MF, np.asarray(f_MF, dtype=np.float64))


def chosen_alpha(x_MN: np.ndarray, f_M: np.ndarray, lassos: Lassos, factor: int, seed: int) -> float:
    """The penalty with the smallest squared error over 5 folds of these clips."""
    largest = lassos.largest_alpha(factor)
    if largest <= 0:
        return ALPHA
    alphas = np.geomspace(largest, 0.01 * largest, ALPHAS)
    fold_M = np.random.default_rng(seed).permutation(len(f_M)) % 5
    error_A = np.zeros(ALPHAS)
    for fold in range(5):
        inside = Lassos(x_MN[fold_M != fold], f_M[fold_M != fold, None])
        predicted_MA = inside.predicted(x_MN[fold_M == fold], inside.path(0, alphas), 0)
        error_A += np.square(predicted_MA - f_M[fold_M == fold, None]).sum(0)
    return float(alphas[error_A.argmin()])


def in_sample_r2(x_MN: np.ndarray, f_MF: np.ndarray, alpha: float = ALPHA) -> np.ndarray:
    """R2 [F] on the clips that the regressions were fitted on: the paper's, which noise raises too."""
    lassos = Lassos(x_MN, f_MF)
    predicted_MF = [lassos.predicted(x_MN, lassos.path(j, np.array([alpha])), j)[:, 0] for j in range(f_MF.shape[1])]
    return r2(f_MF, np.stack(predicted_MF, axis=1))[0]


def r2(f_MF: np.ndarray, predicted_MF: np.ndarray, weights_XM: np.ndarray | None = None) -> np.ndarray:
    """1 - squared error / squared distance from the mean, [X, F]; a row for each row of clip weights."""
    weights_XM = np.ones((1, len(f_MF))) if weights_XM is None else weights_XM
    mean_XF = weights_XM @ f_MF / weights_XM.sum(1, keepdims=True)
    total_XF = weights_XM @ np.square(f_MF) - np.square(mean_XF) * weights_XM.sum(1, keepdims=True)
    return 1 - weights_XM @ np.square(f_MF - predicted_MF) / np.maximum(total_XF, 1e-300)


def entropies(weights_NF: np.ndarray) -> np.ndarray:
    """Entropy H [F] in nats of each factor's weights over the dimensions; NaN where all are 0."""
    r_NF = np.abs(np.asarray(weights_NF, dtype=np.float64))
    sum_F = r_NF.sum(0)
    p_NF = r_NF / np.where(sum_F > 0, sum_F, 1)
    h_F = -np.where(p_NF > 0, p_NF * np.log(np.where(p_NF > 0, p_NF, 1)), 0.0).sum(0)
    return np.where(sum_F > 0, h_F, np.nan)


def completeness(weights_NF: np.ndarray) -> np.ndarray:
    """C [F]; NaN for a factor whose weights are all 0, and where there is a single dimension."""
    count = len(weights_NF)
    return 1 - entropies(weights_NF) / (np.log(count) if count > 1 else np.nan)


def effective_dimensions(weights_NF: np.ndarray) -> np.ndarray:
    """exp(H) [F]: how many dimensions with equal weights would be as spread out."""
    return np.exp(entropies(weights_NF))


def disentanglement(weights_NF: np.ndarray) -> float:
    """D: how far each dimension is for one factor alone, the mean over dimensions by the sum of their weights."""
    r_FN = np.abs(np.asarray(weights_NF)).T
    weight_N = r_FN.sum(0)
    if not weight_N.any() or len(r_FN) < 2:
        return float("nan")
    return float(np.average(np.nan_to_num(completeness(r_FN)), weights=weight_N))


def paper_completeness(weights_NF: np.ndarray) -> np.ndarray:
    """C [F] by the paper's code: a factor that nothing predicts, whose weights are all 0, has 1."""
    r_NF = np.abs(np.asarray(weights_NF, dtype=np.float64))
    p_NF = r_NF / (r_NF.sum(0) + TINY)
    return 1 + (p_NF * np.log(p_NF + TINY)).sum(0) / np.log(len(r_NF) + TINY)


NEIGHBOURS = 3
TIES = 0.1
"""Share of equal values from which on a factor has no density."""


def knn_entropy(values_M: np.ndarray) -> float | None:
    """Differential entropy in bits of the standardised values, by the distance to the third neighbour (Kozachenko and
    Leonenko 1987); None for a factor with more than 10 % of ties, or of fewer than 5 values."""
    special = require("scipy.special", "eval")
    values_M = np.asarray(values_M, dtype=np.float64)
    count, spread = len(values_M), float(values_M.std())
    ties = 1 - len(np.unique(values_M)) / max(count, 1)
    if count < NEIGHBOURS + 2 or ties > TIES or spread == 0:
        return None
    z_M = np.sort((values_M - values_M.mean()) / spread)
    # the third neighbour of a sorted value is among the three on either side
    steps_3 = np.arange(1, NEIGHBOURS + 1)
    padded_M = np.concatenate([np.full(NEIGHBOURS, -np.inf), z_M, np.full(NEIGHBOURS, np.inf)])
    at_M = np.arange(count) + NEIGHBOURS
    far_M6 = np.abs(np.stack([padded_M[at_M + sign * step] - z_M for step in steps_3 for sign in (-1, 1)], axis=1))
    far_M = np.sort(far_M6, axis=1)[:, NEIGHBOURS - 1]
    nats = special.psi(count) - special.psi(NEIGHBOURS) + np.log(2) + np.log(np.maximum(far_M, 1e-12)).mean()
    return float(nats / np.log(2))
