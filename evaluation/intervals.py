"""95 % confidence intervals where values are not independent: several edits of a clip, several clips of a speaker."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import astuple
from typing import Any, NamedTuple

import numpy as np

from evaluation.report import Interval, Row, Share

INTERVALS = "95 %: speakers (where named) and clips resampled; of shares without spread exact for the number of clips"
"""What reports say of their intervals."""


def all_or_none(share: float, count: int) -> Share:
    """A share of 0 or 1 of independent trials, with Clopper and Pearson's exact interval: up to the share with which as
    many trials would all turn out like that with a probability of 2.5 %."""
    if not count:
        return Share(math.nan, math.nan, math.nan, 0)
    reach = 0.025 ** (1 / count)
    return Share(1.0, reach, 1.0, count) if share else Share(0.0, 0.0, 1 - reach, count)


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
        return all_or_none(float(all(flags)), count)
    mean = clustered_bootstrap([float(flag) for flag in flags], clips)
    return Share(mean.value, 0.0, 1.0, 1) if count == 1 else Share(*astuple(mean))


def mean_share(shares: Sequence[float], clips: Sequence[Hashable]) -> Share:
    """The mean of shares, one or several a clip, as `clustered_share`."""
    if all(share == 1 for share in shares) or not any(shares):
        return clustered_share([share == 1 for share in shares], clips)
    return Share(*astuple(clustered_bootstrap(shares, clips)))
