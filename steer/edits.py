"""Edits: what to do with features. `Ablate`, `Clamp`, `Scale` act on chosen features, `Shift` moves along a vector.
`AddDirection` changes the activation itself and needs no SAE.

The value of a clamp and the factor of a scaling are a number, a tensor [j] with one for each of their j features, a
`Curve` over time, or `PerRow`, one for each row of the batch; strengths are one of these but the second. `during`
limits an edit to spans in seconds, and `when` to where a gate is open (`steer.gates`); elsewhere features stay what
they were.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Self, cast

import torch
from torch import Tensor

from hooks.by_value import ByValue
from steer.errors import EditError
from steer.feature_ids import check_features
from steer.gates import Gate
from steer.values import Curve, Frames, Span, Value, as_spans, checked, moved_to, vector_of


@dataclass(frozen=True, eq=False)
class Edit(ByValue, ABC):
    """What is done at a site: `change` says it, of all features [B, T, d_sae].

    An edit of some features by themselves is a `FeatureEdit`, which costs less; one of the activation itself, without
    an SAE, is an `ActivationEdit`. `change` is asked everywhere; outside `during`, or where a gate `when` is shut, what
    it says is not taken.
    """

    during: Span | Sequence[Span] | None = field(default=None, kw_only=True)
    when: Gate | None = field(default=None, kw_only=True)
    kind: ClassVar[str] = ""
    of_features: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "during", as_spans(self.during))
        if not (self.when is None or isinstance(self.when, Gate)):
            raise EditError(f"when takes a Gate, not a {type(self.when).__name__}")

    def conditional(self, when: Gate | None) -> Self:
        """The same edit behind another gate, or behind none."""
        edit = copy(self)
        object.__setattr__(edit, "when", when)
        return edit

    @abstractmethod
    def change(self, old_BTX: Tensor, frames: Frames, /) -> Tensor:
        """New values for the old ones, of the same shape and dtype."""

    def delta(self, old_BTX: Tensor, frames: Frames, /) -> Tensor:
        """What `change` adds; of more digits where that is known without the sum."""
        return self.change(old_BTX, frames) - old_BTX

    def applied(self, old_BTX: Tensor, frames: Frames) -> Tensor:
        """What `change` gives, and outside `during` the old values, bit for bit."""
        new_BTX = self._changed(old_BTX, frames)
        return new_BTX if self.during is None else torch.where(frames.within(self.spans), new_BTX, old_BTX)

    def _changed(self, old_BTX: Tensor, frames: Frames) -> Tensor:
        return self.change(old_BTX, frames)

    @property
    def spans(self) -> tuple[Span, ...]:
        """`during`, none where the edit is everywhere."""
        return cast("tuple[Span, ...]", self.during or ())

    @property
    def timed(self) -> bool:
        """Whether the edit depends on when a frame is."""
        return self.during is not None or any(isinstance(value, Curve) for value in vars(self).values())

    # --- what the change at a site needs to know, to cost no more than the edit (`steer.delta`) ---

    @property
    def touched(self) -> tuple[int, ...]:
        """The features that it changes each by itself."""
        return ()

    @property
    def moved(self) -> tuple[int, ...]:
        """All features that it is known to change, in whatever way."""
        return self.touched

    @property
    def learned(self) -> bool:
        """Whether what `among` and `push` give has to be looked at anew each time, with gradients."""
        return False

    def check(self, d_sae: int) -> None:
        """Raises EditError where an SAE of so many features is not one for this edit."""

    def among(self, features: Sequence[int]) -> Edit | None:
        """The same edit of features [B, T, S] where only these are there; None where it needs the others."""
        return None

    def push(self, features: Sequence[int], W_dec_FD: Tensor) -> Tensor | None:
        """What it adds to the activation [D] by all the other features, times `amount`, whatever they are."""
        return None

    def amount(self, frames: Frames, like: Tensor) -> Tensor:
        """How much of `push` is added, as [B or 1, T or 1, 1]."""
        raise NotImplementedError


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

    def _changed(self, f_BTF: Tensor, frames: Frames) -> Tensor:
        """All features, of which it changes its own."""
        if len(self.places) == f_BTF.shape[-1] and self._in_order:
            return self.change(f_BTF, frames)
        columns_S = self._columns.to(f_BTF.device, non_blocking=True)
        new_BTF = f_BTF.clone()
        new_BTF[..., columns_S] = self.change(f_BTF[..., columns_S], frames)
        return new_BTF

    @property
    def places(self) -> tuple[int, ...]:
        """Where its features stand: at their ids, or after `among` elsewhere."""
        return vars(self).get("_places", self.features)

    @cached_property
    def _columns(self) -> Tensor:
        return torch.tensor(self.places)

    @cached_property
    def _in_order(self) -> bool:
        return list(self.places) == list(range(len(self.places)))

    @property
    def touched(self) -> tuple[int, ...]:
        return tuple(self.features)

    def check(self, d_sae: int) -> None:
        check_features(self.features, d_sae)

    def among(self, features: Sequence[int]) -> Edit:
        place = {feature: index for index, feature in enumerate(features)}
        edit = copy(self)  # also of a class that is made otherwise
        for known in ("_columns", "_in_order"):
            vars(edit).pop(known, None)
        object.__setattr__(edit, "_places", tuple(place[feature] for feature in self.features))
        return edit


@dataclass(frozen=True, eq=False)
class Ablate(FeatureEdit):
    """Set features to zero."""

    kind: ClassVar[str] = "ablate"

    def change(self, f_BTS: Tensor, frames: Frames) -> Tensor:
        return torch.zeros_like(f_BTS)

    def delta(self, f_BTS: Tensor, frames: Frames) -> Tensor:
        return -f_BTS


@dataclass(frozen=True, eq=False)
class Clamp(FeatureEdit):
    """Set features to a value, whatever they were: the same for all, or one for each [j]."""

    value: Value
    kind: ClassVar[str] = "clamp"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "value", checked(self.value, "the value of a clamp", len(self.features)))

    def change(self, f_BTS: Tensor, frames: Frames) -> Tensor:
        return frames.value(self.value, f_BTS).expand_as(f_BTS)


@dataclass(frozen=True, eq=False)
class Scale(FeatureEdit):
    """Multiply features by a factor: the same for all, or one for each [j]."""

    factor: Value
    kind: ClassVar[str] = "scale"

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "factor", checked(self.factor, "the factor of a scaling", len(self.features)))

    def change(self, f_BTS: Tensor, frames: Frames) -> Tensor:
        return f_BTS * frames.value(self.factor, f_BTS)


@dataclass(frozen=True, eq=False)
class _Along(Edit):
    """An edit along a vector, by a strength. `made_for` is the model that a `ControlVector` names."""

    vector: Tensor
    strength: Value = 1.0
    made_for: str = field(default="", kw_only=True, repr=False)
    problem: ClassVar[str] = ""
    """What is said of a vector that is none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "made_for", self.made_for or getattr(self.vector, "model", ""))
        object.__setattr__(self, "vector", vector_of(self.vector, self.problem))
        object.__setattr__(self, "strength", checked(self.strength, f"the strength of {self.kind}"))


@dataclass(frozen=True, eq=False)
class Shift(_Along):
    """Add `strength` times a vector [d_sae] (or a `ControlVector`) to the features of every frame.

    Gradients reach a vector that requires them, as they reach strengths, factors and values. `made_for` is the model
    that a `ControlVector` names.
    """

    kind: ClassVar[str] = "shift"
    problem: ClassVar[str] = "a control vector is one finite number per feature"

    def change(self, f_BTF: Tensor, frames: Frames) -> Tensor:
        return f_BTF + frames.value(self.strength, f_BTF) * moved_to(self.vector, f_BTF)

    @property
    def moved(self) -> tuple[int, ...]:
        """Those along which the vector points."""
        return tuple(self.vector.nonzero()[:, 0].tolist())

    @property
    def learned(self) -> bool:
        return self.vector.requires_grad

    def check(self, d_sae: int) -> None:
        if len(self.vector) != d_sae:
            raise EditError(f"the vector has {len(self.vector)} numbers, the SAE {d_sae} features")

    def among(self, features: Sequence[int]) -> Edit | None:
        if type(self).change is not Shift.change:  # it may look at any feature
            return None
        edit = copy(self)
        object.__setattr__(edit, "vector", self.vector[list(features)])
        return edit

    def push(self, features: Sequence[int], W_dec_FD: Tensor) -> Tensor:
        vector_F = moved_to(self.vector, W_dec_FD)
        features_S = torch.tensor(features, dtype=torch.long, device=W_dec_FD.device)
        return vector_F @ W_dec_FD - vector_F[features_S] @ W_dec_FD[features_S]

    def amount(self, frames: Frames, like: Tensor) -> Tensor:
        amount = frames.value(self.strength, like)
        return amount if self.during is None else amount * frames.within(self.spans)


@dataclass(frozen=True, eq=False)
class ActivationEdit(Edit):
    """An edit of the activation [B, T, D] itself, which needs no SAE: that is what `change` gets."""

    of_features: ClassVar[bool] = False


@dataclass(frozen=True, eq=False)
class AddDirection(_Along, ActivationEdit):
    """Add `strength` times a direction [D] to the activation of every frame.

    The direction may be a `ControlVector` as `steer.directions` fits them. With `keep_norm` each frame then gets the
    length back that it had. Frames to which nothing is added stay what they were, bit for bit. Gradients reach a vector
    that requires them. `made_for` is the model that a `ControlVector` names.
    """

    keep_norm: bool = False
    kind: ClassVar[str] = "add_direction"
    problem: ClassVar[str] = "a direction is one finite number for each coordinate of the activation"

    def change(self, x_BTD: Tensor, frames: Frames) -> Tensor:
        """Its sum with the direction, computed in fp32 or more.

        Raises:
            EditError: the activation is not as wide as the vector is long.
        """
        if len(self.vector) != x_BTD.shape[2]:
            raise EditError(f"the direction has {len(self.vector)} numbers, the activation is {x_BTD.shape[2]} wide")
        old_BTD = x_BTD.to(torch.promote_types(x_BTD.dtype, torch.float32))
        added_BTD = frames.value(self.strength, old_BTD) * moved_to(self.vector, old_BTD)
        new_BTD = old_BTD + added_BTD
        if self.keep_norm:
            length_BT1 = new_BTD.norm(dim=2, keepdim=True).clamp(min=torch.finfo(old_BTD.dtype).tiny)
            new_BTD = new_BTD * (old_BTD.norm(dim=2, keepdim=True) / length_BT1)
        return torch.where((added_BTD != 0).any(dim=2, keepdim=True), new_BTD.to(x_BTD.dtype), x_BTD)
