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

from hooks.extensions import Registry
from steer.edits import Ablate, AddDirection, Clamp, Edit, Scale, Shift
from steer.errors import EditError, RecipeError
from steer.recipe_gates import When
from steer.recipe_values import Number, Spans, each_feature, inside
from steer.values import Curve, Span
from steer.vectors import load_vector, load_vectors


@dataclass(frozen=True)
class Said:
    """What a recipe says of an edit besides: when, how much, how a path in it is found, and where, if it says so."""

    during: list[Span] | None
    strength: float | Curve
    located: Callable[[str], str]
    site: str | None = None
    keep_norm: bool = False


@dataclass(frozen=True)
class RecipeEdit:
    """A kind of edits. `what` is the type of what stands behind it, in pydantic's sense, and `edits` makes edits of it:
    a list for the site that the recipe names (or the only one with an SAE), or {site: list}.

    Of a `vector`, `what` is a file, which is found relative to the recipe. `options` are those of strength and
    keep_norm that there may be. A recipe whose edits have no need of an SAE (`needs_sae`) may name none.
    """

    what: Any
    edits: Callable[[Any, Said], list[Edit] | dict[str, list[Edit]]]
    vector: bool = False
    options: tuple[str, ...] = ()
    needs_sae: bool = True


def of_features(make: Callable[..., Edit]) -> RecipeEdit:
    """`{KIND: [3, 17]}`: make([3, 17], during=...)."""
    return RecipeEdit(list[int], lambda features, said: [make(features, during=said.during)])


def of_values(make: Callable[..., Edit]) -> RecipeEdit:
    """`{KIND: {3: 2.0, 17: [[0, 1], [2, 1.5]]}}`, a number or a curve for each feature: make(features, value, ...)."""

    def edits(numbers: Any, said: Said) -> list[Edit]:
        return [make(features, value, during=said.during) for features, value in each_feature(numbers)]

    return RecipeEdit(dict[int, Number], edits)


def of_vector(make: Callable[..., Edit]) -> RecipeEdit:
    """`{KIND: vectors.safetensors#warm, strength: 8}`: make(ControlVector, strength, during=...)."""

    def edits(source: str, said: Said) -> list[Edit]:
        return [make(load_vector(said.located(source)), said.strength, during=said.during)]

    return RecipeEdit(str, edits, vector=True, options=("strength",))


def directions(source: str, said: Said) -> dict[str, list[Edit]]:
    """The directions of a file at the sites that they were fitted at, or one of them at the site that the recipe names.

    Raises:
        EditError: no such file or direction, one that has no site, or several for one site.
    """
    path = said.located(source)
    named = [load_vector(path)] if "#" in source else list(load_vectors(path).values())
    if said.site is not None and len(named) > 1:
        named = [vector for vector in named if vector.site == said.site]
    found: dict[str, list[Edit]] = {}
    for vector in named:
        site = said.site or vector.site
        if not site:
            raise EditError(f"{source}: {vector.name} does not say at which site it was fitted; name one: site: NAME")
        if site in found:
            raise EditError(f"{source}: holds several directions for {site!r}; name one as {source}#NAME")
        found[site] = [
            AddDirection(vector.vector, said.strength, said.keep_norm, during=said.during, made_for=vector.model)
        ]
    if not found:
        raise EditError(f"{source}: holds no direction for {said.site!r}; name one as {source}#NAME")
    return found


RECIPE_EDITS: Registry[RecipeEdit] = Registry(
    "recipe edit",
    RecipeError,
    {
        "ablate": of_features(Ablate),
        "clamp": of_values(Clamp),
        "scale": of_values(Scale),
        "shift": of_vector(Shift),
        "add_direction": RecipeEdit(str, directions, True, ("strength", "keep_norm"), needs_sae=False),
    },
)


class EditSpec(BaseModel):
    """One edit, `{KIND: what}`, of a kind in `RECIPE_EDITS`. `site` may be left out where there is one SAE, and for
    directions that say where they were fitted."""

    model_config = ConfigDict(extra="allow", frozen=True)

    strength: Number | None = None
    keep_norm: bool | None = None
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
        for option in ("strength", "keep_norm"):
            if values.get(option) is not None and option not in kinds[key].options:
                takers = [name for name, kind in RECIPE_EDITS.items() if option in kind.options]
                raise ValueError(f"{option} belongs to {' and '.join(takers)}")
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
