"""Edits: what to do with features. `Ablate`, `Clamp`, `Scale` act on chosen features, `Shift` moves along a vector.
`AddDirection` changes the activation itself and needs no SAE.

A value (of a clamp, a factor, a strength) is a number, a [batch] tensor with a number per row, or a `Curve` over time.
`during` limits an edit to spans in seconds; elsewhere features stay what they were.
"""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, cast

import torch
from torch import Tensor

from hooks.by_value import ByValue
from hooks.rows import current_rows
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


Value = float | Tensor | Curve


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
        """`value` as [B or 1, T or 1, 1].

        Raises:
            EditError: a tensor whose length is not the batch, or one where the rows have a time of their own.
        """
        if isinstance(value, Curve):
            return value.at(self.time_T)[None, :, None].to(like)
        tensor = torch.as_tensor(value).to(like)
        if tensor.ndim == 0:
            return tensor.view(1, 1, 1)
        if tensor.ndim != 1 or not len(tensor) or self.batch % len(tensor):
            raise EditError(f"a value per row needs {self.batch} numbers, got shape {list(tensor.shape)}")
        if len(tensor) > 1 and current_rows() is not None:
            # which sounds are stacked into a batch is not the caller's to know
            raise EditError("a value per row has no meaning where each row is a sound with a time of its own")
        # beams and channels repeat each row of the batch
        return tensor.repeat_interleave(self.batch // len(tensor)).view(-1, 1, 1)

    def within(self, spans: Sequence[Span]) -> Tensor:
        """Whether each frame's centre lies in one of the spans [start, end), as bool [1, T, 1]."""
        inside_T = torch.zeros_like(self.time_T, dtype=torch.bool)
        for start, end in spans:
            inside_T |= (self.time_T >= start) & (self.time_T < end)
        return inside_T[None, :, None].to(self.device)


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


def check_value(value: Value, what: str) -> None:
    if not isinstance(value, Curve) and not torch.isfinite(torch.as_tensor(value)).all():
        raise EditError(f"{what} has to be finite, not {value}")


@dataclass(frozen=True, eq=False)
class Edit(ByValue, ABC):
    """What is done at a site: `change` says it, of all features [B, T, d_sae].

    An edit of some features by themselves is a `FeatureEdit`, which costs less; one of the activation itself, without
    an SAE, is an `ActivationEdit`. `change` is asked everywhere; outside `during` what it says is not taken.
    """

    during: Span | Sequence[Span] | None = field(default=None, kw_only=True)
    kind: ClassVar[str] = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "during", as_spans(self.during))

    @abstractmethod
    def change(self, old_BTX: Tensor, frames: Frames, /) -> Tensor:
        """New values for the old ones, of the same shape and dtype."""

    @property
    def timed(self) -> bool:
        """Whether the edit depends on when a frame is."""
        return self.during is not None or any(isinstance(value, Curve) for value in vars(self).values())


@dataclass(frozen=True, eq=False)
class FeatureEdit(Edit):
    """An edit of chosen features [B, T, S], each by itself: those are what `change` gets, in their order."""

    features: Sequence[int]

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            object.__setattr__(self, "features", tuple(operator.index(feature) for feature in self.features))
        except TypeError:
            raise EditError(f"{self.kind} takes a list of whole numbers, not {self.features!r}") from None
        if not self.features:
            raise EditError(f"{self.kind} needs at least one feature")
        if len(set(self.features)) != len(self.features):
            raise EditError(f"{self.kind} names a feature twice")
        if max(map(abs, self.features)) >= 2**63:
            raise EditError(f"{self.kind} names a feature of more than 18 digits: no SAE has so many")

    def difference(self, f_BTS: Tensor, frames: Frames) -> Tensor:
        """What `change` adds to them [B, T, S]."""
        return self.change(f_BTS, frames) - f_BTS


@dataclass(frozen=True, eq=False)
class Ablate(FeatureEdit):
    """Set features to zero."""

    kind: ClassVar[str] = "ablate"

    def change(self, f_BTS: Tensor, frames: Frames) -> Tensor:
        return torch.zeros_like(f_BTS)

    def difference(self, f_BTS: Tensor, frames: Frames) -> Tensor:
        return -f_BTS


@dataclass(frozen=True, eq=False)
class Clamp(FeatureEdit):
    """Set features to a value, whatever they were."""

    value: Value
    kind: ClassVar[str] = "clamp"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_value(self.value, "the value of a clamp")

    def change(self, f_BTS: Tensor, frames: Frames) -> Tensor:
        return frames.value(self.value, f_BTS).expand_as(f_BTS)


@dataclass(frozen=True, eq=False)
class Scale(FeatureEdit):
    """Multiply features by a factor."""

    factor: Value
    kind: ClassVar[str] = "scale"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_value(self.factor, "the factor of a scaling")

    def change(self, f_BTS: Tensor, frames: Frames) -> Tensor:
        return f_BTS * frames.value(self.factor, f_BTS)


@dataclass(frozen=True, eq=False)
class Shift(Edit):
    """Add `strength` times a vector [d_sae] (or a `ControlVector`) to the features of every frame.

    Gradients reach a vector that requires them, as they reach strengths, factors and values.
    """

    vector: Tensor
    strength: Value = 1.0
    kind: ClassVar[str] = "shift"

    def __post_init__(self) -> None:
        super().__post_init__()
        vector = torch.as_tensor(getattr(self.vector, "vector", self.vector))
        if vector.ndim != 1 or not torch.isfinite(vector).all():
            raise EditError("a control vector is one finite number per feature")
        object.__setattr__(self, "vector", vector)
        check_value(self.strength, "the strength of a shift")

    def change(self, f_BTF: Tensor, frames: Frames) -> Tensor:
        return f_BTF + frames.value(self.strength, f_BTF) * self.vector.to(f_BTF)


@dataclass(frozen=True, eq=False)
class ActivationEdit(Edit):
    """An edit of the activation [B, T, D] itself, which needs no SAE: that is what `change` gets."""

    def applied(self, x_BTD: Tensor, frames: Frames) -> Tensor:
        """What `change` gives, and outside `during` the activation as it was, bit for bit."""
        new_BTD = self.change(x_BTD, frames)
        if self.during is None:
            return new_BTD
        return torch.where(frames.within(self.during), new_BTD, x_BTD)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class AddDirection(ActivationEdit):
    """Add `strength` times a direction [D] to the activation of every frame.

    The direction may be a `ControlVector` as `steer.directions` fits them. With `keep_norm` each frame then gets the
    length back that it had. Frames to which nothing is added stay what they were, bit for bit. Gradients reach a vector
    that requires them.
    """

    vector: Tensor
    strength: Value = 1.0
    keep_norm: bool = False
    kind: ClassVar[str] = "add_direction"

    def __post_init__(self) -> None:
        super().__post_init__()
        vector = torch.as_tensor(getattr(self.vector, "vector", self.vector))
        if vector.ndim != 1 or not torch.isfinite(vector).all():
            raise EditError("a direction is one finite number for each coordinate of the activation")
        object.__setattr__(self, "vector", vector)
        check_value(self.strength, "the strength of a direction")

    def change(self, x_BTD: Tensor, frames: Frames) -> Tensor:
        """Its sum with the direction, computed in fp32 or more.

        Raises:
            EditError: the activation is not as wide as the vector is long.
        """
        if len(self.vector) != x_BTD.shape[2]:
            raise EditError(f"the direction has {len(self.vector)} numbers, the activation is {x_BTD.shape[2]} wide")
        old_BTD = x_BTD.to(torch.promote_types(x_BTD.dtype, torch.float32))
        added_BTD = frames.value(self.strength, old_BTD) * self.vector.to(old_BTD)
        new_BTD = old_BTD + added_BTD
        if self.keep_norm:
            length_BT1 = new_BTD.norm(dim=2, keepdim=True).clamp(min=torch.finfo(old_BTD.dtype).tiny)
            new_BTD = new_BTD * (old_BTD.norm(dim=2, keepdim=True) / length_BT1)
        return torch.where((added_BTD != 0).any(dim=2, keepdim=True), new_BTD.to(x_BTD.dtype), x_BTD)
