"""A linear probe for labels of several classes: multinomial logistic regression on standardised vectors.

The strength of its penalty is chosen by cross-validation on the clips to train on, in groups. The optimum is that of a
linear layer trained with cross-entropy, found by its convex optimum, not by steps of Adam. `paper_probe` is the latter,
as the paper on singing has it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import torch

from evaluation.probing import ROUNDING
from hooks.errors import require
from hooks.random_numbers import seeded

STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)
"""1 / strength of the penalty that are tried."""
MAX_ITER, TOLERANCE = 300, 1e-3


class Standard:
    """Brings vectors to mean 0 and variance 1 as the rows that it is made from; constant dimensions are left out."""

    def __init__(self, x_ND: np.ndarray) -> None:
        x_ND = np.asarray(x_ND, dtype=np.float64)
        self.mean_D, std_D = x_ND.mean(0), x_ND.std(0)
        self.kept_D = std_D > ROUNDING * np.sqrt(np.square(x_ND).mean())
        self.std_D = np.where(self.kept_D, std_D, 1)

    def __call__(self, x_ND: np.ndarray) -> np.ndarray:
        return ((x_ND - self.mean_D) / self.std_D)[:, self.kept_D]


def predictions(x_ND: np.ndarray, y_N: np.ndarray, test_MD: np.ndarray, strengths: Sequence[float]) -> np.ndarray:
    """The classes [S, M] that probes fitted on x, y predict for other vectors: a probe per strength, each started from
    the solution of the one before.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    linear_model = require("sklearn.linear_model", "eval")
    standard = Standard(x_ND)
    if not standard.kept_D.any() or len(np.unique(y_N)) < 2:
        return np.full((len(strengths), len(test_MD)), np.bincount(y_N).argmax())
    known_ND, x_MD = standard(x_ND), standard(test_MD)
    if known_ND.shape[1] > len(known_ND):
        # the solution lies in the span of the clips: as many coordinates as clips are enough
        span_DK = np.linalg.qr(known_ND.T)[0]
        known_ND, x_MD = known_ND @ span_DK, x_MD @ span_DK
    probe = linear_model.LogisticRegression(max_iter=MAX_ITER, tol=TOLERANCE, warm_start=True)
    found = []
    with warnings.catch_warnings():
        # the weakest penalty may take more steps; it is one of several
        warnings.simplefilter("ignore", require("sklearn.exceptions", "eval").ConvergenceWarning)
        for strength in strengths:
            probe.C = strength
            found.append(probe.fit(known_ND, y_N).predict(x_MD))
    return np.stack(found)


def chosen_strength(x_ND: np.ndarray, y_N: np.ndarray, fold_N: np.ndarray) -> tuple[float, float]:
    """The strength whose probes are right most often about the folds that they are not fitted on, and how often."""
    right_S = np.zeros(len(STRENGTHS))
    for fold in np.unique(fold_N):
        test_N = fold_N == fold
        right_S += (predictions(x_ND[~test_N], y_N[~test_N], x_ND[test_N], STRENGTHS) == y_N[test_N]).sum(1)
    best = int(right_S.argmax())
    return STRENGTHS[best], float(right_S[best] / len(y_N))


EPOCHS, BATCH, RATE = 120, 32, 1e-3


def paper_probe(
    x_ND: np.ndarray, y_N: np.ndarray, test_MD: np.ndarray, valid_N: np.ndarray, seed: int = 0, epochs: int = EPOCHS
) -> np.ndarray:
    """The classes [M] predicted by one linear layer trained with Adam on unscaled vectors: the weights of the epoch
    with the lowest loss on the clips in `valid_N`."""
    x, y, test = torch.from_numpy(x_ND).float(), torch.from_numpy(y_N).long(), torch.from_numpy(test_MD).float()
    valid = torch.from_numpy(valid_N)
    with seeded(seed):
        layer = torch.nn.Linear(x.shape[1], int(y.max()) + 1)
        optimizer = torch.optim.Adam(layer.parameters(), lr=RATE)
        loss_of = torch.nn.functional.cross_entropy
        rows, least, best = (~valid).nonzero()[:, 0], float("inf"), {}
        for _ in range(epochs):
            for batch in rows[torch.randperm(len(rows))].split(BATCH):
                optimizer.zero_grad()
                loss_of(layer(x[batch]), y[batch]).backward()
                optimizer.step()
            with torch.no_grad():
                loss = float(loss_of(layer(x[valid]), y[valid]))
            if loss < least:
                least, best = loss, {name: value.clone() for name, value in layer.state_dict().items()}
        layer.load_state_dict(best)
        with torch.no_grad():
            return layer(test).argmax(1).numpy()
