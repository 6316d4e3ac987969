"""Pooling: what a read-out of a whole stretch of sound sees of its frames.

`mean` and `max` are over the frames; `log_mean` and `log_max` are log(1 + 20 mean) and log(1 + max), for features that
are 0 or more: few of them are large, and what counts is often whether they fire at all.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

MEAN_GAIN = 20.0
"""Means of sparse features are small numbers."""
POOLINGS = {"mean": "mean", "max": "max", "log_mean": "mean", "log_max": "max"}
"""Names, and what each does over the frames."""
LOGS = ("log_mean", "log_max")


def pooled(f_ETF: Tensor, pooling: Sequence[str]) -> Tensor:
    """[P, F] of features [E, T, F], over all their frames; E are the rows that belong to one sound."""
    whole = {"mean": lambda: f_ETF.mean((0, 1)), "max": lambda: f_ETF.amax((0, 1))}
    return torch.stack([squashed(whole[POOLINGS[name]](), name) for name in pooling])


def smoothed(f_ETF: Tensor, pooling: Sequence[str], frames: int) -> Tensor:
    """[T, P, F]: the same around each frame, over an odd number of `frames`; fewer at both ends."""
    side = frames // 2
    f_EFT = f_ETF.transpose(1, 2)

    def mean() -> Tensor:
        return F.avg_pool1d(f_EFT, 2 * side + 1, 1, side, count_include_pad=False).mean(0).T

    def largest() -> Tensor:
        return F.max_pool1d(f_EFT, 2 * side + 1, 1, side).amax(0).T

    around = {"mean": mean, "max": largest}
    return torch.stack([squashed(around[POOLINGS[name]](), name) for name in pooling], dim=1)


def squashed(pooled_XF: Tensor, name: str) -> Tensor:
    if name == "log_mean":
        return torch.log1p(MEAN_GAIN * pooled_XF.clamp(min=0))
    return torch.log1p(pooled_XF.clamp(min=0)) if name == "log_max" else pooled_XF
