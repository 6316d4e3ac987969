from __future__ import annotations

import pytest

from evaluation import figures
from evaluation.report import Interval

pytest.importorskip("matplotlib", reason="extra eval")


def about(value: float) -> Interval:
    return Interval(value, value - 0.05, value + 0.05, 40)


def test_bars_are_as_long_as_the_numbers() -> None:
    rows = {"ranked": [about(0.2), None, about(0.1)], "random": [about(0.7), about(0.8), None]}
    (axes,) = figures.figure([figures.bars("title", "%", ["a", "b", "c"], rows)]).axes
    bars = [[(round(bar.get_width(), 6)) for bar in container] for container in axes.containers if len(container) == 2]
    assert bars == [[20.0, 10.0], [70.0, 80.0]]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a", "b", "c"]
    # the second series of c is missing: nothing stands there
    assert len(axes.patches) == 4
    # a resampled statistic may lie to one side of its estimate
    assert figures.whiskers([Interval(0.5, 0.6, 0.7, 3)], 1)[0] == [0]
