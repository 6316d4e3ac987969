from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import TypeAdapter, ValidationError

from steer.recipe_values import Number, Spans, amount, each_feature, written
from steer.values import Curve

Loudness = TypeAdapter(Annotated[float, amount("dB"), written("dB")])


@pytest.mark.parametrize(
    ("text", "value"),
    [("+6dB", 6.0), ("-1.5 db", -1.5), (" .5 ", 0.5), ("3.", 3.0), (2, 2.0), (-0.25, -0.25)],
)
def test_an_amount_is_read_with_or_without_its_unit(text: Any, value: float) -> None:
    assert Loudness.validate_python(text) == value
    assert Loudness.validate_python(Loudness.dump_python(value)) == value


@pytest.mark.parametrize("text", ["6 apples", "6st", "dB", "", "1e3dB", "--2dB", "1,5dB"])
def test_what_is_no_amount(text: str) -> None:
    with pytest.raises(ValidationError, match="is not an amount such as"):
        Loudness.validate_python(text)


def test_amounts_are_written_with_their_sign() -> None:
    assert [Loudness.dump_python(value) for value in (6.0, -1.5, 0.0)] == ["+6dB", "-1.5dB", "+0dB"]


def test_spans_are_one_or_several() -> None:
    read = TypeAdapter(Spans).validate_python
    assert read([0.5, 1.5]) == [(0.5, 1.5)]
    assert read([[0, 1], [2, 3]]) == [(0.0, 1.0), (2.0, 3.0)]
    assert read(None) is None
    for wrong in ("soon", [1], [2, 1], [[0, 1], 2], 5):
        with pytest.raises(ValidationError, match="span"):
            read(wrong)


def test_a_number_or_a_curve() -> None:
    read = TypeAdapter(Number).validate_python
    assert read(2) == 2.0
    assert read([[0, 1], [2, 1.5]]) == [(0.0, 1.0), (2.0, 1.5)]
    for wrong in ([], [[1, 2], [0, 3]], [[0]], "x", float("inf"), [[0, float("nan")]]):
        with pytest.raises(ValidationError):
            read(wrong)


def test_numbers_are_together_and_each_curve_by_itself() -> None:
    curve, other = [(0.0, 1.0)], [(1.0, 2.0)]
    assert each_feature({3: 2.0, 5: 1.5, 4: 2.0}) == [([3, 5, 4], [2.0, 1.5, 2.0])]
    assert each_feature({3: 2.0, 4: 2.0}) == [([3, 4], 2.0)]
    assert each_feature({1: curve, 7: 0.5, 3: other, 2: curve}) == [
        ([7], 0.5),
        ([1, 2], Curve(((0.0, 1.0),))),
        ([3], Curve(((1.0, 2.0),))),
    ]
