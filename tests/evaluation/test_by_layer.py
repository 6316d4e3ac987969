"""Reports of several sites as one, and as tables and figures with a row a site."""

from __future__ import annotations

import pytest

from evaluation.by_layer import a_row_a_site, by_site, column_of, joined, lines
from evaluation.report import Report, Share


def report(site: str, value: float) -> Report:
    rows = [
        {"concept": "sound=rain", "needed": Share(value, value / 2, 1.0, 9)},
        {"concept": "mean of 1", "needed": None},
    ]
    return Report(f"at {site}", rows, [{"clip": site}], {"model": "m", "site": site})


def test_reports_of_several_sites_are_one_with_a_column_for_them() -> None:
    both = joined({"encoder.0": report("encoder.0", 0.2), "encoder.1": report("encoder.1", 0.4)}, "Both")
    assert [row["site"] for row in both.rows] == ["encoder.0", "encoder.0", "encoder.1", "encoder.1"]
    assert both.clips == [{"site": "encoder.0", "clip": "encoder.0"}, {"site": "encoder.1", "clip": "encoder.1"}]
    assert both.about == {
        "model": "m",
        "sites": {"encoder.0": {"site": "encoder.0"}, "encoder.1": {"site": "encoder.1"}},
    }
    assert both.title == "Both"
    assert list(by_site(both.rows)) == ["encoder.0", "encoder.1"]


def test_the_report_of_one_site_stays_as_it_is() -> None:
    one = report("encoder.0", 0.2)
    assert joined({"encoder.0": one}, "Both") is one
    assert list(by_site(one.rows)) == [""]


def test_a_table_with_a_row_a_site() -> None:
    both = joined({"encoder.0": report("encoder.0", 0.2), "encoder.1": report("encoder.1", 0.4)}, "Both")
    table = a_row_a_site("T", both.rows, lambda row: row["concept"] if "=" in row["concept"] else None, "needed")
    assert [(row["site"], row["sound=rain"].value) for row in table.rows] == [("encoder.0", 0.2), ("encoder.1", 0.4)]
    assert list(table.rows[0]) == ["site", "sound=rain"]


def test_a_line_for_each_column_with_gaps_where_there_is_no_value() -> None:
    matplotlib = pytest.importorskip("matplotlib.figure", reason="extra eval")
    rows = [
        {"site": "a", "x": Share(0.1, 0.0, 0.2, 3), "y": Share(0.5, 0.4, 0.6, 3)},
        {"site": "b", "x": Share(0.3, 0.2, 0.4, 3), "y": None},
    ]
    axes = matplotlib.Figure().subplots()
    _, draw = lines("T", "%", Report("", rows), Report("", [{"site": "a", "x": 0.7}, {"site": "b", "x": 0.8}]))
    draw(axes)
    drawn = [(list(line.get_xdata()), [round(float(y), 6) for y in line.get_ydata()]) for line in axes.get_lines()]
    assert ([0, 1], [10, 30]) in drawn
    assert ([0], [50]) in drawn
    assert ([0, 1], [70, 80]) in drawn
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "b"]


def test_columns_are_means_of_kinds_and_concepts_that_have_none() -> None:
    names = ["sound=a", "sound=b", "speech=yes", "sound: mean of 2", "mean of 3"]
    rows = [{"site": site, "concept": name} for site in "xy" for name in names]
    name_of = column_of(rows)
    assert [name_of(row) for row in rows[:5]] == [None, None, "speech=yes", "sound", "all"]
