"""Can a concept still be read? A fresh linear probe, what counts as chance, and curves of both.

Probe: scikit-learn's logistic regression, fitted on the training clips (each column brought to mean 0 and variance 1,
both classes weighing the same), asked about the held-out ones. It is regularised weakly on purpose: AudioSAE (arXiv
2602.05027, appendix E) found a concept gone after 3 to 6 % of the features by the library's default and after 19 %
without any, and a probe that is held back proves nothing. Its score is the balanced accuracy: the mean of the shares
that it gets right of clips with and of clips without the concept, 0.5 for any blind guess however rare the concept is.

Chance: a probe is at chance if its balanced accuracy is not above what 95 % of all ways to deal its own answers out
over the same held-out clips stay under. That is the permutation null, known in closed form (hypergeometric; Fisher's
exact test, one-sided), so it holds for any number of clips, however few, without a normal approximation and without
refitting. It rests on nothing but that answers about held-out clips are independent of their labels if the activations
say nothing of them. With few clips the band is wide, which makes a concept easy to call removed: the bound is part of
every result, and so is what the probe still knows: (accuracy - 1/2) / (accuracy without an edit - 1/2), which is 1
where nothing is lost and 0 where nothing is left (`information`).

Intervals are of the Bayesian bootstrap (Rubin 1981) over the held-out clips: speakers, where they are known, and the
clips of each have random weights. To each class of each concept four quarter clips are added, with random weights too:
one for each way in which a probe may get a clip right or wrong before and after an edit. Where no speaker is known the
interval of one class is then exactly Jeffreys' (Beta(right + 1/2, wrong + 1/2)). So it has a width also where all or
none are right, and so has the ratio of two such accuracies.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from evaluation.report import Interval
from hooks.errors import require

Kind = TypeVar("Kind", bound=Interval)

ROUNDS = 1000
"""Resamplings of an interval."""
C = 100.0
"""1 / strength of the probe's L2 penalty."""
ROUNDING = 1e-5
"""A column that varies by less than this share of the activations' size is constant: the rest is float32's rounding,
in which a removed concept leaves a trace."""
EXACT = 1e-9
"""Equal but for rounding."""


@dataclass(frozen=True)
class Weights:
    """Weights of the clips [X, N], and of the quarter clips that are added: [X, class, right before, right after].

    The first row is the estimate itself: ones, and zeros.
    """

    clips_XN: np.ndarray
    prior_XCBA: np.ndarray

    @classmethod
    def equal(cls, clips: int) -> Weights:
        return cls(np.ones((1, clips)), np.zeros((1, 2, 2, 2)))

    def of(self, concept: str) -> Weights:
        """The same with quarter clips of that concept's own."""
        rng = np.random.default_rng(zlib.crc32(concept.encode()))
        quarters_RCBA = rng.gamma(0.25, size=(len(self.clips_XN) - 1, 2, 2, 2))
        return replace(self, prior_XCBA=np.concatenate([np.zeros((1, 2, 2, 2)), quarters_RCBA]))


@dataclass(frozen=True)
class Answers:
    """What a probe says (bool [M]) of the held-out clips with the numbers `clips_M`, and what is so."""

    clips_M: np.ndarray
    says_M: np.ndarray
    is_M: np.ndarray

    def balanced_accuracy(self, weights: Weights, before: bool = False) -> np.ndarray:
        """[X], for each row of weights; say whether these answers are those before an edit."""
        weights_XM = weights.clips_XN[:, self.clips_M]
        right_M = self.says_M == self.is_M
        prior_XC2 = weights.prior_XCBA.sum(3 if before else 2)
        shares = []
        for index, one_M in enumerate((self.is_M, ~self.is_M)):
            right_X, all_X = weights_XM @ (right_M & one_M), weights_XM @ one_M
            shares.append((right_X + prior_XC2[:, index, 1]) / (all_X + prior_XC2[:, index].sum(1)))
        return (shares[0] + shares[1]) / 2

    def chance(self) -> float:
        """Largest balanced accuracy that is still chance."""
        stats = require("scipy.stats", "eval")
        said, yes, no = int(self.says_M.sum()), int(self.is_M.sum()), int((~self.is_M).sum())
        hits = float(stats.hypergeom(yes + no, yes, said).ppf(0.95))
        return (hits / yes + 1 - (said - hits) / no) / 2

    @property
    def above_chance(self) -> bool:
        return bool(self.balanced_accuracy(Weights.equal(self.clips_M.max() + 1))[0] > self.chance() + EXACT)


def ask(x_ND: np.ndarray, y_N: np.ndarray, train_N: np.ndarray) -> Answers:
    """Fit a probe on the training clips and ask it about the others.

    `x_ND` holds a vector a clip; `y_N` is 1 with the concept, 0 without, -1 where neither is known.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    require("sklearn", "eval")
    from sklearn.linear_model import LogisticRegression

    fit_N, asked_N = (y_N >= 0) & train_N, (y_N >= 0) & ~train_N
    known_ND = x_ND[fit_N].astype(np.float64)
    mean_D, std_D = known_ND.mean(0), known_ND.std(0)
    kept_D = std_D > ROUNDING * np.sqrt(np.square(known_ND).mean())
    said_M = np.zeros(int(asked_N.sum()), dtype=bool)
    if kept_D.any():
        known_ND = ((known_ND - mean_D) / np.where(kept_D, std_D, 1))[:, kept_D]
        asked_MD = ((x_ND[asked_N] - mean_D) / np.where(kept_D, std_D, 1))[:, kept_D]
        if known_ND.shape[1] > len(known_ND):
            # with an L2 penalty the solution lies in the span of the clips: as many coordinates as clips are enough
            span_DK = np.linalg.qr(known_ND.T)[0]
            known_ND, asked_MD = known_ND @ span_DK, asked_MD @ span_DK
        probe = LogisticRegression(C=C, class_weight="balanced", solver="newton-cholesky", max_iter=200)
        probe.fit(known_ND, y_N[fit_N])
        said_M = probe.predict(asked_MD) == 1
    return Answers(np.flatnonzero(asked_N), said_M, y_N[asked_N] == 1)


def resampled(speakers: Sequence[str], rounds: int, seed: int = 0) -> Weights:
    """Weights of 1 + `rounds` sets of as many clips as there are speakers named; a clip of "" stands by itself.

    Unlike draws of whole clips these never lose all clips of a rare class. The same rows for all concepts and for a
    probe before and after an edit, so that their means and ratios have intervals too. `Weights.of` a concept completes
    them.
    """
    rng = np.random.default_rng(seed)
    clips_RN = rng.exponential(size=(rounds, len(speakers)))
    for speaker in sorted({one for one in speakers if one}):
        is_N = np.array([one == speaker for one in speakers])
        clips_RN[:, is_N] *= rng.exponential(size=(rounds, 1))
    return Weights(np.vstack([np.ones((1, len(speakers))), clips_RN]), np.zeros((1 + rounds, 2, 2, 2)))


def information(after_X: np.ndarray, before_X: np.ndarray) -> np.ndarray:
    """The share [X] of what balanced accuracies were above chance, 1/2, before that they are afterwards."""
    return (after_X - 0.5) / (before_X - 0.5)


def interval(values_X: np.ndarray, count: int, kind: type[Kind] = Interval) -> Kind:  # type: ignore[assignment]
    """The estimate (first value) with 95 % of the resampled ones; it may lie at an end: a share of 100 % does."""
    value = float(values_X[0])
    low, high = np.percentile(values_X[1:], [2.5, 97.5])
    return kind(value, min(value, float(low)), max(value, float(high)), count)


def falling(y_XK: np.ndarray) -> np.ndarray:
    """The nearest curves [X, K] that never rise (least squares, by the min-max formula of isotonic regression)."""
    size = y_XK.shape[-1]
    total_XK = np.concatenate([np.zeros((len(y_XK), 1)), np.cumsum(y_XK, axis=1)], axis=1)
    first, last = np.arange(size)[:, None], np.arange(size)[None]
    mean_XKK = (total_XK[:, None, 1:] - total_XK[:, :-1, None]) / np.maximum(last - first + 1, 1)
    return np.stack([mean_XKK[:, : k + 1, k:].max(2).min(1) for k in range(size)], axis=1)


@dataclass(frozen=True)
class Curve:
    """Probes with 0, then ever more features ablated: `counts` [K], accuracy [X, K] per resampling, chance [K]."""

    counts: Sequence[int]
    accuracy_XK: np.ndarray
    chance_K: np.ndarray

    @classmethod
    def of(cls, counts: Sequence[int], answers: Sequence[Answers], weights: Weights) -> Curve:
        accuracy_XK = np.stack([one.balanced_accuracy(weights, n == 0) for n, one in enumerate(answers)], axis=1)
        return cls(counts, accuracy_XK, np.array([one.chance() for one in answers]))

    @property
    def reached(self) -> bool:
        """Whether any count is enough."""
        return int(self.enough()[0]) < len(self.counts)

    def enough(self) -> np.ndarray:
        """Index [X] of the first count at which the probe is at chance; K where it never is.

        Its height above chance is made to fall first (`falling`): a lucky dip that more features undo is not enough.
        """
        gone_XK = falling(self.accuracy_XK - self.chance_K) <= EXACT
        return np.where(gone_XK.any(1), gone_XK.argmax(1), len(self.counts))

    def needed(self, features: int) -> np.ndarray:
        """Share [X] of all `features` that is enough; 1 where even the most that were ablated are not."""
        return np.array([*self.counts, features])[self.enough()] / features

    def area(self) -> np.ndarray:
        """Mean accuracy [X] over the logarithm of the number of features: 0.5 if the first number is enough."""
        position_K = np.log(self.counts[1:])
        if len(position_K) == 1:
            return self.accuracy_XK[:, 1]
        return np.trapezoid(self.accuracy_XK[:, 1:], position_K, axis=1) / (position_K[-1] - position_K[0])
