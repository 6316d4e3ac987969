"""Values of a recipe as people write them: "+6dB", a span or several, a number or a curve."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, FiniteFloat, PlainSerializer

from steer.edits import Curve, as_spans
from steer.errors import EditError


def amount(unit: str) -> BeforeValidator:
    """Reads "+6dB" (or a plain number) as 6.0."""

    def read(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        found = re.fullmatch(rf"\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*({re.escape(unit)})?\s*", value, re.IGNORECASE)
        if not found:
            raise ValueError(f"{value!r} is not an amount such as +2{unit} or -1.5{unit}")
        return float(found[1])

    return BeforeValidator(read)


def written(unit: str) -> PlainSerializer:
    return PlainSerializer(lambda value: None if value is None else f"{value:+.10g}{unit}")


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


Spans = Annotated[list[tuple[float, float]] | None, BeforeValidator(spans)]
Number = Annotated[FiniteFloat | list[tuple[float, float]], AfterValidator(curve)]


def value_of(number: float | list[tuple[float, float]]) -> float | Curve:
    return Curve(tuple(number)) if isinstance(number, list) else number


def by_value(numbers: Mapping[int, float | list[tuple[float, float]]]) -> list[tuple[float | Curve, list[int]]]:
    """Features of one value together: hundreds are one edit then."""
    found: dict[float | Curve, list[int]] = {}
    for feature, number in numbers.items():
        found.setdefault(value_of(number), []).append(feature)
    return list(found.items())
