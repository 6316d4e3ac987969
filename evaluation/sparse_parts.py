"""A sparse code taken apart: which features fire (position) and how strongly (magnitude); and how evenly they fire.

As `codec-accent-sae.txt` (arXiv 2603.18359, section 2.3): z_pos = 1[z > 0], z_mag the k largest values in falling
order, without their positions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

GROUPS = 16
BUSIEST = 0.05


def active_of(width: int, share: float) -> int:
    """k = ceil(s d), of the codec's width d, not of the SAE's; of the share as it is written: .1 of 1280 is 128."""
    return math.ceil(Fraction(str(share)) * width)


def parts_of(z_NF: np.ndarray, k: int) -> dict[str, np.ndarray]:
    """z [N, F] itself, `position` [N, F] and `magnitude` [N, k]."""
    magnitude_NK = -np.sort(-z_NF, axis=1)[:, :k]
    return {"z": z_NF, "position": (z_NF > 0).astype(np.float64), "magnitude": np.maximum(magnitude_NK, 0)}


def macro_f1(said_M: np.ndarray, truth_M: np.ndarray, weights_XM: np.ndarray | None = None) -> np.ndarray:
    """Mean of the classes' F1 [X] for each row of clip weights, over the classes that are there or are said."""
    weights_XM = np.ones((1, len(truth_M))) if weights_XM is None else weights_XM
    scores = []
    for one in np.union1d(said_M, truth_M):
        said, true = said_M == one, truth_M == one
        hit_X = weights_XM @ (said & true)
        scores.append(2 * hit_X / np.maximum(weights_XM @ said + weights_XM @ true, 1e-300))
    return np.mean(scores, axis=0)


# --- density ---


@dataclass(frozen=True)
class Density:
    """How evenly features fire on some clips.

    `share_G`: share of all activations in 16 consecutive groups of features. Their order means nothing, so two bands
    stand beside it, between which 95 % of draws lie with all of their groups: `reordered` (features in another order)
    and `uniform` (the features of each clip drawn anew, each as likely as another). `gini` is that of the features'
    firing rates, `busiest` the share of all activations in the 5 % busiest features, `dead` that of features that never
    fire: these do not depend on the order.
    """

    share_G: np.ndarray
    reordered: tuple[float, float]
    uniform: tuple[float, float]
    gini: float
    busiest: float
    dead: float

    def leaves(self, band: tuple[float, float]) -> bool:
        """Whether a group is outside of a band."""
        return bool((self.share_G < band[0]).any() or (self.share_G > band[1]).any())


def density_of(active_NF: np.ndarray, groups: int = GROUPS, draws: int = 1000, seed: int = 0) -> Density | None:
    """Of which features fire for which clips (bool [N, F]); None where none does."""
    count_F = active_NF.sum(0).astype(np.float64)
    total = count_F.sum()
    if not total:
        return None
    rng = np.random.default_rng(seed)
    parts = np.array_split(np.arange(len(count_F)), min(groups, len(count_F)))
    sizes = [len(part) for part in parts]
    starts = np.cumsum([0, *sizes[:-1]])

    def shares(counts_XF: np.ndarray) -> np.ndarray:
        return np.add.reduceat(counts_XF, starts, axis=-1) / total

    reordered_XG = np.stack([shares(count_F[rng.permutation(len(count_F))]) for _ in range(draws)])
    uniform_XG = np.zeros((draws, len(sizes)))
    for fires in active_NF.sum(1):
        if fires:
            uniform_XG += rng.multivariate_hypergeometric(sizes, int(fires), size=draws)
    rising_F = np.sort(count_F)
    ranks_F = np.arange(1, len(rising_F) + 1)
    gini = float((2 * ranks_F - len(rising_F) - 1) @ rising_F / (len(rising_F) * total))
    top = max(1, round(BUSIEST * len(rising_F)))
    return Density(
        shares(count_F),
        band_of(reordered_XG),
        band_of(uniform_XG / total),
        gini,
        float(rising_F[-top:].sum() / total),
        float((count_F == 0).mean()),
    )


def band_of(shares_XG: np.ndarray) -> tuple[float, float]:
    """Where 95 % of the draws have all of their groups: what single groups stay in, one of 16 would leave often."""
    return float(np.percentile(shares_XG.min(1), 2.5)), float(np.percentile(shares_XG.max(1), 97.5))
