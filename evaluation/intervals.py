"""95 % confidence intervals where the values are not independent of each other: several edits of one clip, say."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import astuple
from typing import Any

import numpy as np

from evaluation.report import Interval, Share

Z = 1.959963984540054
"""The standard normal distribution's 97.5 % quantile."""
TAIL = 0.025


def share_interval(hits: int, count: int, exact: bool = False) -> Share:
    """The share `hits / count` of independent trials, with Wilson's interval, or Clopper and Pearson's `exact` one."""
    if not count:
        return Share(math.nan, math.nan, math.nan, 0)
    low, high = clopper_pearson(hits, count) if exact else wilson(hits, count)
    return Share(hits / count, low, high, count)


def wilson(hits: int, count: int) -> tuple[float, float]:
    share, weight = hits / count, Z**2 / count
    middle = (share + weight / 2) / (1 + weight)
    half = math.sqrt(weight * (share * (1 - share) + weight / 4)) / (1 + weight)
    return max(0.0, middle - half), min(1.0, middle + half)


def clopper_pearson(hits: int, count: int) -> tuple[float, float]:
    """The shares under which as many hits, or as few, have a probability of 2.5 %."""
    low = 0.0 if hits == 0 else bisected(lambda share: at_least(hits, count, share) - TAIL)
    high = 1.0 if hits == count else bisected(lambda share: at_least(hits + 1, count, share) - (1 - TAIL))
    return low, high


def at_least(hits: int, count: int, share: float) -> float:
    """The probability of so many hits or more."""
    return sum(math.comb(count, k) * share**k * (1 - share) ** (count - k) for k in range(hits, count + 1))


def bisected(rising: Callable[[float], float]) -> float:
    """Where a function that rises from below 0 to above it between 0 and 1 is 0."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2


def clustered_bootstrap(
    values: Sequence[float],
    clusters: Sequence[Hashable],
    statistic: Callable[[np.ndarray], Any] = np.mean,
    seed: int = 0,
    rounds: int = 2000,
) -> Interval:
    """A statistic with its percentile interval; whole clusters are drawn, and `count` is how many there are.

    `clusters` says of each value which clip it is of. Values that are not finite do not count.
    """
    groups: dict[Hashable, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        if math.isfinite(value):
            groups.setdefault(cluster, []).append(float(value))
    if not groups:
        return Interval(math.nan, math.nan, math.nan, 0)
    parts = [np.asarray(group) for group in groups.values()]
    draws = np.random.default_rng(seed).integers(len(parts), size=(rounds, len(parts)))
    drawn = [float(statistic(np.concatenate([parts[index] for index in draw]))) for draw in draws]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(float(statistic(np.concatenate(parts))), float(low), float(high), len(parts))


def clustered_share(flags: Sequence[bool], clusters: Sequence[Hashable]) -> Share:
    """The share that is true, with `clustered_bootstrap`.

    Where all or none are true resampling shows no spread: there the interval is the exact one for the number of
    clusters. Of one cluster whose flags differ nothing is known.
    """
    count = len(set(clusters))
    if all(flags) or not any(flags):
        return share_interval(count if flags and all(flags) else 0, count, exact=True)
    mean = clustered_bootstrap([float(flag) for flag in flags], clusters)
    return Share(mean.value, 0.0, 1.0, 1) if count == 1 else Share(*astuple(mean))
