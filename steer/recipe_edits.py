"""Edits as recipes write them: `{KIND: what}`. `RECIPE_EDITS` has a line for each kind.

A kind of one's own is a line too: `RECIPE_EDITS["halve"] = of_features(Halve)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    ValidationError,
    model_serializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from steer.edits import Ablate, Clamp, Curve, Edit, Scale, Shift, Span
from steer.errors import RecipeError
from steer.recipe_gates import When
from steer.recipe_values import Number, Spans, each_feature
from steer.registry import Registry
from steer.vectors import load_vector


@dataclass(frozen=True)
class Said:
    """What a recipe says of an edit besides: when, how much, and how a path in it is found."""

    during: list[Span] | None
    strength: float | Curve
    located: Callable[[str], str]


@dataclass(frozen=True)
class RecipeEdit:
    """A kind of edits. `what` is the type of what stands behind it, in pydantic's sense, and `edits` makes edits of it.

    Of a `vector`, `what` is a file, which is found relative to the recipe, and there may be a strength.
    """

    what: Any
    edits: Callable[[Any, Said], list[Edit]]
    vector: bool = False


def of_features(make: Callable[..., Edit]) -> RecipeEdit:
    """`{KIND: [3, 17]}`: make([3, 17], during=...)."""
    return RecipeEdit(list[int], lambda features, said: [make(features, during=said.during)])


def of_values(make: Callable[..., Edit]) -> RecipeEdit:
    """`{KIND: {3: 2.0, 17: [[0, 1], [2, 1.5]]}}`, a number or a curve for each feature: make(features, value, ...)."""

    def edits(numbers: Any, said: Said) -> list[Edit]:
        return [make(features, value, during=said.during) for features, value in each_feature(numbers)]

    return RecipeEdit(dict[int, Number], edits)


def of_vector(make: Callable[..., Edit]) -> RecipeEdit:
    """`{KIND: vectors.safetensors#warm, strength: 8}`: make(vector, strength, during=...)."""

    def edits(source: str, said: Said) -> list[Edit]:
        return [make(load_vector(said.located(source)).vector, said.strength, during=said.during)]

    return RecipeEdit(str, edits, vector=True)


RECIPE_EDITS: Registry[RecipeEdit] = Registry(
    "recipe edit",
    RecipeError,
    {"ablate": of_features(Ablate), "clamp": of_values(Clamp), "scale": of_values(Scale), "shift": of_vector(Shift)},
)


class EditSpec(BaseModel):
    """One edit, `{KIND: what}`, of a kind in `RECIPE_EDITS`. `site` may be left out where there is one SAE."""

    model_config = ConfigDict(extra="allow", frozen=True)

    strength: Number | None = None
    site: str | None = None
    during: Spans = None
    when: When = None

    @model_validator(mode="before")
    @classmethod
    def _one_kind(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        given = {str(key): values[key] for key in values if key not in cls.model_fields}
        kinds = {key: kind_of(key) for key in given}
        if len([key for key in given if given[key]]) != 1:
            *names, last = RECIPE_EDITS
            raise ValueError(f"an edit is exactly one of {', '.join(names)} and {last}, and names features or a vector")
        ((key, what),) = [(key, given[key]) for key in given if given[key]]
        if values.get("strength") is not None and not kinds[key].vector:
            raise ValueError("strength belongs to a shift")
        try:
            what = TypeAdapter(kinds[key].what).validate_python(what)
        except ValidationError as error:
            problem = error.errors()[0]
            raise inside(problem["type"], problem["msg"], key, *problem["loc"]) from None
        return {key: what, **{name: values[name] for name in cls.model_fields if name in values}}

    @model_serializer(mode="wrap")
    def _kind_first(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values = handler(self)
        return {self.kind: values.pop(self.kind), **values}

    @property
    def kind(self) -> str:
        return next(iter(self.model_extra or {}))

    @property
    def what(self) -> Any:
        return getattr(self, self.kind)


def kind_of(key: str) -> RecipeEdit:
    try:
        return RECIPE_EDITS[key]
    except RecipeError:
        raise inside("extra_forbidden", "there is no such edit", key) from None


def inside(kind: Any, message: str, *place: int | str) -> PydanticCustomError:
    """An error of a kind of pydantic's at a place inside what is validated."""
    return PydanticCustomError(kind, "{message}", {"message": message, "place": place})
