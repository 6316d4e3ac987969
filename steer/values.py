"""Values of edits, and when they hold.

A value is a number, a tensor [j] with one for each of j features, a `Curve` over time, or `PerRow`, one for each row of
the batch. `Frames` says what a value is at the frames that an edit meets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor

from hooks.by_value import ByValue
from hooks.errors import shortened
from hooks.timing import now
from steer.errors import EditError

Span = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """A value that changes over time: straight lines between (second, value) points, constant outside them."""

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        seconds = [second for second, _ in self.points]
        if not self.points or seconds != sorted(set(seconds)):
            raise EditError("a curve needs points whose times rise")
        if not all(math.isfinite(number) for point in self.points for number in point):
            raise EditError("a curve's times and values have to be finite numbers")

    def at(self, time_T: Tensor) -> Tensor:
        seconds, values = torch.tensor(self.points, dtype=time_T.dtype, device=time_T.device).T.contiguous()
        if len(seconds) == 1:
            return values.expand_as(time_T)
        right = torch.searchsorted(seconds, time_T).clamp(1, len(seconds) - 1)
        share = (time_T - seconds[right - 1]) / (seconds[right] - seconds[right - 1])
        return torch.lerp(values[right - 1], values[right], share.clamp(0, 1))


@dataclass(frozen=True, eq=False)
class PerRow(ByValue):
    """A value for each row of the batch [B], so that one batch can hold many strengths: `Shift(v, PerRow([0, 1, 2]))`.

    Beams and channels of a row share its value.
    """

    values: Tensor

    def __post_init__(self) -> None:
        values = torch.as_tensor(self.values)
        if values.ndim != 1 or not len(values) or not torch.isfinite(values).all():
            raise EditError(f"PerRow takes a finite number for each row, not {shortened(str(self.values))}")
        object.__setattr__(self, "values", values)


Value = float | Tensor | Curve | PerRow
"""A number, one for each feature, a curve over time, or one for each row."""


@dataclass
class Frames:
    """The frames that an edit meets: their batch, number, rate (Hz), and the second at which the first starts."""

    batch: int
    count: int
    rate: float
    start_s: float
    device: torch.device

    @classmethod
    def of(cls, x_BTD: Tensor, frame_rate: float, start_s: float) -> Frames:
        return cls(x_BTD.shape[0], x_BTD.shape[1], frame_rate, start_s, x_BTD.device)

    @cached_property
    def time_T(self) -> Tensor:
        """The time of their centres in seconds, float64 on the CPU (not all devices have it); most edits do not ask."""
        count = torch.arange(self.count, dtype=torch.float64)
        return self.start_s + (count + 0.5) / self.rate

    def value(self, value: Value, like: Tensor) -> Tensor:
        """`value` as [B or 1, T or 1, S or 1], S being the features that a tensor has a number for.

        Raises:
            EditError: a `PerRow` whose length does not divide the batch, or where the rows have a time of their own.
        """
        if isinstance(value, Curve):
            return moved_to(value.at(self.time_T)[None, :, None], like)
        if not isinstance(value, PerRow):
            return moved_to(torch.as_tensor(value), like).view(1, 1, -1)
        rows_R = moved_to(value.values, like)
        if self.batch % len(rows_R):
            raise EditError(f"a value per row needs {self.batch} numbers, got {len(rows_R)}")
        if len(rows_R) > 1 and now().rows is not None:
            # which sounds are stacked into a batch is not the caller's to know
            raise EditError("a value per row has no meaning where each row is a sound with a time of its own")
        # beams and channels repeat each row of the batch
        return rows_R.repeat_interleave(self.batch // len(rows_R)).view(-1, 1, 1)

    def within(self, spans: Sequence[Span]) -> Tensor:
        """Whether each frame's centre lies in one of the spans [start, end), as bool [1, T, 1]."""
        inside_T = torch.zeros_like(self.time_T, dtype=torch.bool)
        for start, end in spans:
            inside_T |= (self.time_T >= start) & (self.time_T < end)
        return inside_T[None, :, None].to(self.device, non_blocking=True)


def moved_to(value: Tensor, like: Tensor) -> Tensor:
    """`value` on the device and in the dtype of `like`. From the CPU to a GPU without waiting for what it computes; the
    other way round that would give numbers that are not there yet."""
    return value.to(like.device, like.dtype, non_blocking=value.is_cpu)


def as_spans(during: Span | Sequence[Span] | None) -> tuple[Span, ...] | None:
    """Normalise one span or several.

    Raises:
        EditError: no span, or one that ends before it starts or starts before 0.
    """
    if during is None:
        return None
    if not len(during):
        raise EditError("during has no spans: leave it out to edit everywhere")
    several = [during] if isinstance(during[0], int | float) else during
    spans = tuple((float(start), float(end)) for start, end in cast(Sequence[Span], several))
    for start, end in spans:
        if not (0 <= start < end):
            raise EditError(
                f"a span of {start:g} to {end:g} s is empty: it has to start at 0 or later and end after its start"
            )
    return spans


def checked(value: Any, what: str, features: int | None = None) -> Value:
    """A value that is the same for all features, or a tensor with one for each. `features` is their number; where it is
    None, a tensor of several numbers has one for each row of the batch.

    Raises:
        EditError: it is no number, not finite, or of another length.
    """
    if isinstance(value, Curve | PerRow):
        return value
    number = value if isinstance(value, Tensor) else torch.as_tensor(value)
    if not torch.isfinite(number).all():
        raise EditError(f"{what} has to be finite, not {value}")
    if not number.ndim:
        return value
    if features is None:
        return PerRow(number)
    if number.shape != (features,):
        raise EditError(
            f"{what} is one number or one for each of the {features} features, not {list(number.shape)} numbers; "
            "one for each row of the batch is PerRow(numbers)"
        )
    return number


def vector_of(vector: Any, problem: str) -> Tensor:
    """The numbers of a tensor or a `ControlVector`; raises EditError, saying the problem, for what is none."""
    vector_X = torch.as_tensor(getattr(vector, "vector", vector))
    if vector_X.ndim != 1 or not torch.isfinite(vector_X).all():
        raise EditError(problem)
    return vector_X
