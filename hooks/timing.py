"""When it is: which part of which recording the model gets at the moment, as far as somebody has said.

One record, the `Moment`, holds it all. What drives a model says parts of it, each for the length of a with-block in the
present context: `at_time`, when what the model gets starts; `sound_until`, where the sound in it ends (the rest of a
window is padding, and what comes of that is not a sound); `rows_at`, both for each row of a batch; `taken_whole`, which
recordings the rows are of. Whoever looks at activations asks `current_time` and `real_frames`.

A recording (`Whole`) is known beforehand to what has to know all of it before the model has got there, such as a gate
that decides by clip: it is passed once for that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from hooks.errors import SiteError
from hooks.site import Site

Change = Callable[[Tensor], Tensor | None]
"""Takes an activation [B, T, D]; returns the new one, or None to leave it alone."""


@dataclass(frozen=True)
class Moment:
    """`start_s`, the second at which what the model gets starts; `end_s`, where its sound ends; `carry`, what a model
    with a running state keeps from chunk to chunk; `rows`, where each row of the batch has a time of its own;
    `wholes`, the recordings that the rows of the batch are parts of, one for each row."""

    start_s: float | None = None
    end_s: float | None = None
    carry: dict[str, Any] | None = None
    rows: Rows | None = None
    wholes: tuple[Whole, ...] | None = None


_now: ContextVar[Moment] = ContextVar("audiosteer_moment", default=Moment())  # noqa: B039 - it is frozen


def now() -> Moment:
    return _now.get()


@contextmanager
def saying(**parts: Any) -> Iterator[None]:
    """Say parts of a `Moment` for the length of a with-block; the others stay what they are."""
    previous = _now.set(replace(_now.get(), **parts))
    try:
        yield
    finally:
        _now.reset(previous)


# --- where the chunk starts, and where its sound ends ---


def at_time(seconds: float, carry: dict[str, Any] | None = None) -> AbstractContextManager[None]:
    """Say that what the model gets inside this block starts at `seconds` of the whole recording.

    `carry` is one dict for all chunks of a recording, in which a model with a running state (the phase of an
    oscillator) finds what it left there at the chunk before.
    """
    return saying(start_s=seconds, carry=carry)


def current_time() -> float | None:
    """Start of the present chunk in seconds, or None outside `at_time`."""
    return now().start_s


def sound_until(seconds: float) -> AbstractContextManager[None]:
    """Say that the sound that the model gets inside this block ends at `seconds` of the whole recording."""
    return saying(end_s=seconds)


def real_frames(frames: int, frame_rate: float | None) -> int:
    """How many of the `frames` of the present call hold sound; all of them where nobody said, or without a rate."""
    moment = now()
    if moment.end_s is None or frame_rate is None:
        return frames
    return max(0, min(frames, frames_in(moment.end_s - (moment.start_s or 0.0), frame_rate)))


def frames_in(seconds: float, frame_rate: float) -> int:
    """Number of frames that hold any of a sound of that length."""
    # 1.1 s * 50 Hz is 55.00000000000001
    return math.ceil(seconds * frame_rate - 1e-6)


# --- recordings ---


@dataclass(eq=False)
class Whole:
    """A recording from `start_s` to `end_s` seconds; `again` passes all of it through the model once, in its windows.

    `end_s` and `again` are None where nobody knows the end yet, as in a stream. `found` keeps what was found out about
    the recording in passes of its own, for as long as it is worked on.
    """

    start_s: float = 0.0
    end_s: float | None = None
    again: Callable[[], object] | None = None
    found: dict[Hashable, Any] = field(default_factory=dict)


def whole_sounds(
    audio_BCN: Tensor, sample_rate: int, run: Callable[[Tensor], object], start_s: float = 0.0
) -> tuple[Whole, ...]:
    """A `Whole` for each row of the batch, which `run` passes through the model."""
    end_s = start_s + audio_BCN.shape[-1] / sample_rate
    return tuple(Whole(start_s, end_s, partial(run, audio_BCN[row : row + 1])) for row in range(len(audio_BCN)))


@contextmanager
def taken_whole(audio_BCN: Tensor, sample_rate: int | None, run: Callable[[Tensor], object]) -> Iterator[None]:
    """Say inside that the rows are whole recordings, unless somebody has said what they are, or when they start."""
    moment = now()
    if moment.wholes is not None or moment.start_s is not None or sample_rate is None:
        yield
        return
    with saying(wholes=whole_sounds(audio_BCN, sample_rate, run)):
        yield


# --- rows that each have a time of their own ---


class Rows:
    """Calls changes row by row of a batch, with those together that have the same (start, end)."""

    def __init__(self, times: Sequence[tuple[float, float]], wholes: Sequence[Whole] | None = None) -> None:
        self.count, self.wholes = len(times), wholes
        self.groups: dict[tuple[float, float], list[int]] = {}
        for row, (start_s, end_s) in enumerate(times):
            self.groups.setdefault((start_s, end_s), []).append(row)
        if not times:
            raise SiteError("rows_at: say the time of one row at least")

    def __call__(self, site: Site, change: Change, x_BTD: Tensor) -> Tensor | None:
        # beams and channels repeat each row
        each, rest = divmod(len(x_BTD), self.count)
        if rest or not each:
            raise SiteError(f"site {site.name!r}: {len(x_BTD)} rows, but rows_at tells the times of {self.count}")
        if len(self.groups) == 1:
            ((time, rows),) = self.groups.items()
            with self._group(time, rows):
                return change(x_BTD)
        parts, order, changed = [], [], False
        for time, rows in self.groups.items():
            places = [row * each + beam for row in rows for beam in range(each)]
            old_BTD = x_BTD[places]
            with self._group(time, rows):
                new_BTD = change(old_BTD)
            if new_BTD is not None and new_BTD.shape != old_BTD.shape:
                raise SiteError(
                    f"site {site.name!r}: the change has shape {list(new_BTD.shape)}, "
                    f"the rows at {time[0]:g} s {list(old_BTD.shape)}"
                )
            changed = changed or new_BTD is not None
            parts.append(old_BTD if new_BTD is None else new_BTD)
            order += places
        return torch.cat(parts)[torch.tensor(order).argsort()] if changed else None

    def _group(self, time: tuple[float, float], rows: Sequence[int]) -> AbstractContextManager[None]:
        """The moment of some of the rows."""
        wholes = None if self.wholes is None else tuple(self.wholes[row] for row in rows)
        return saying(start_s=time[0], end_s=time[1], carry=None, wholes=wholes)


def rows_at(
    times: Sequence[tuple[float, float]], wholes: Sequence[Whole] | None = None
) -> AbstractContextManager[None]:
    """Say when each row of the batch is that the model gets inside this block: (start, end of its sound).

    Both are seconds of the row's own recording, as in `at_time` and `sound_until`, which hold inside changes alone.
    A site may have several rows for each, one behind the other. `wholes` are the recordings that they are parts of.

    Raises:
        SiteError: no rows; in the forward pass, if a site has another number of rows.
    """
    return saying(rows=Rows(times, wholes))
