"""Values of a recipe as people write them: "+6dB", a span or several, a number or a curve."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, FiniteFloat, PlainSerializer
from pydantic_core import PydanticCustomError

from steer.errors import EditError
from steer.goals import GOALS
from steer.values import Curve, as_spans


def inside(kind: Any, message: str, *place: int | str) -> PydanticCustomError:
    """An error of a kind of pydantic's at a place inside what is validated."""
    return PydanticCustomError(kind, "{message}", {"message": message, "place": place})


def amount_in(value: Any, unit: str) -> Any:
    """The number of a text such as "+6dB"; other values as they are. Raises ValueError."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(rf"\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*({re.escape(unit)})?\s*", value, re.IGNORECASE)
    if not found:
        raise ValueError(f"{value!r} is not an amount such as +2{unit} or -1.5{unit}")
    return float(found[1])


def amount(unit: str) -> BeforeValidator:
    """Reads "+6dB" (or a plain number) as 6.0."""
    return BeforeValidator(lambda value: amount_in(value, unit))


def written(unit: str) -> PlainSerializer:
    return PlainSerializer(lambda value: None if value is None else f"{value:+.10g}{unit}")


def amounts(values: Any) -> Any:
    """{goal: amount} as {goal: number}, in the order of `GOALS`; None is none."""
    if not isinstance(values, Mapping):
        return values
    found = {}
    for name, value in values.items():
        try:
            goal = GOALS[name]
            found[name] = amount_in(value, goal.unit)
        except EditError:
            raise inside("extra_forbidden", "there is no such goal", str(name)) from None
        except ValueError as error:
            raise inside("value_error", str(error), name) from None
        if goal.relative and isinstance(found[name], int | float) and found[name] <= -100:
            raise inside("value_error", "Input should be greater than -100", name)
    return {name: found[name] for name in GOALS if found.get(name) is not None}


def amounts_written(goals: Mapping[str, float]) -> dict[str, str]:
    return {name: f"{value:+.10g}{GOALS[name].unit}" for name, value in goals.items()}


def spans(value: Any) -> Any:
    """One span or several; EditErrors become pydantic's."""
    if value is None:
        return None
    try:
        return [list(span) for span in as_spans(value) or ()]
    except (EditError, TypeError, ValueError, IndexError, KeyError) as error:
        text = str(error) if isinstance(error, EditError) else "a span is [start, end] in seconds"
        raise ValueError(text) from None


def curve(value: Any) -> Any:
    if isinstance(value, list):
        try:
            Curve(tuple((second, number) for second, number in value))
        except EditError as error:
            raise ValueError(str(error)) from None
    return value


Goals = Annotated[dict[str, FiniteFloat], BeforeValidator(amounts), PlainSerializer(amounts_written)]
"""Changes that shall be measured, by their names in `GOALS`."""
Spans = Annotated[list[tuple[float, float]] | None, BeforeValidator(spans)]
Number = Annotated[FiniteFloat | list[tuple[float, float]], AfterValidator(curve)]


def value_of(number: float | list[tuple[float, float]]) -> float | Curve:
    return Curve(tuple(number)) if isinstance(number, list) else number


def each_feature(
    numbers: Mapping[int, float | list[tuple[float, float]]],
) -> list[tuple[list[int], float | list[float] | Curve]]:
    """Features and their values: all that have a number together, then those that share a curve."""
    plain = {feature: number for feature, number in numbers.items() if not isinstance(number, list)}
    curves: dict[Curve, list[int]] = {}
    for feature, number in numbers.items():
        if isinstance(number, list):
            curves.setdefault(Curve(tuple(number)), []).append(feature)
    found: list[tuple[list[int], float | list[float] | Curve]] = [(some, curve) for curve, some in curves.items()]
    if plain:
        values = list(plain.values())
        found.insert(0, (list(plain), values[0] if len(set(values)) == 1 else values))
    return found
