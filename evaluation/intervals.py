"""95 % confidence intervals where values are not independent: several edits of a clip, several clips of a speaker."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import astuple
from typing import Any, NamedTuple

import numpy as np

from evaluation.report import Interval, Row, Share

Z = 1.959963984540054
"""The standard normal distribution's 97.5 % quantile."""
TAIL = 0.025
INTERVALS = "95 %: speakers (where named) and clips resampled; of shares without spread exact for the number of clips"
"""What reports say of their intervals."""


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


class SpokenClip(NamedTuple):
    """A clip and who speaks in it ("": not known)."""

    clip: str
    speaker: str


def clips_in(rows: Sequence[Row]) -> list[SpokenClip]:
    """Of rows with the keys `clip` and `speaker`."""
    return [SpokenClip(row["clip"], row["speaker"]) for row in rows]


def draws_of(speakers: Sequence[str], rounds: int, rng: np.random.Generator) -> np.ndarray:
    """How often each clip is in each of the resampled sets [rounds, clips].

    `speakers` says who speaks in each clip; a clip of "" stands by itself. First speakers are drawn, with replacement,
    then as many clips of each as there are: of one speaker alone only the clips vary.
    """
    members: dict[str | int, list[int]] = {}
    for index, speaker in enumerate(speakers):
        members.setdefault(speaker or index, []).append(index)
    drawn_RS = rng.multinomial(len(members), np.full(len(members), 1 / len(members)), size=rounds)
    counts_RN = np.zeros((rounds, len(speakers)), dtype=np.int64)
    for column_R, indices in zip(drawn_RS.T, members.values(), strict=True):
        size = len(indices)
        counts_RN[:, indices] = rng.multinomial(column_R * size, np.full(size, 1 / size))
    return counts_RN


def clustered_bootstrap(
    values: Sequence[float],
    clips: Sequence[Hashable],
    statistic: Callable[[np.ndarray], Any] = np.mean,
    seed: int = 0,
    rounds: int = 2000,
) -> Interval:
    """A statistic with its percentile interval; all values of a clip are drawn together, and `count` is the clips.

    `clips` says of each value which clip it is of; a `SpokenClip` says whose, too (`draws_of`). Values that are not
    finite do not count.
    """
    groups: dict[Hashable, list[float]] = {}
    for value, clip in zip(values, clips, strict=True):
        if math.isfinite(value):
            groups.setdefault(clip, []).append(float(value))
    if not groups:
        return Interval(math.nan, math.nan, math.nan, 0)
    parts = [np.asarray(group) for group in groups.values()]
    speakers = [clip.speaker if isinstance(clip, SpokenClip) else "" for clip in groups]
    draws_RN = draws_of(speakers, rounds, np.random.default_rng(seed))
    numbers = np.arange(len(parts))
    drawn = [float(statistic(np.concatenate([parts[i] for i in np.repeat(numbers, draw_N)]))) for draw_N in draws_RN]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Interval(float(statistic(np.concatenate(parts))), float(low), float(high), len(parts))


def clustered_share(flags: Sequence[bool], clips: Sequence[Hashable]) -> Share:
    """The share that is true, with `clustered_bootstrap`.

    Where all or none are true resampling shows no spread: there the interval is the exact one for the number of clips.
    Of one clip whose flags differ nothing is known.
    """
    count = len(set(clips))
    if all(flags) or not any(flags):
        return share_interval(count if flags and all(flags) else 0, count, exact=True)
    mean = clustered_bootstrap([float(flag) for flag in flags], clips)
    return Share(mean.value, 0.0, 1.0, 1) if count == 1 else Share(*astuple(mean))


def mean_share(shares: Sequence[float], clips: Sequence[Hashable]) -> Share:
    """The mean of shares, one or several a clip, as `clustered_share`."""
    if all(share == 1 for share in shares) or not any(shares):
        return clustered_share([share == 1 for share in shares], clips)
    return Share(*astuple(clustered_bootstrap(shares, clips)))
