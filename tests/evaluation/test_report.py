from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from evaluation.report import Interval, Report, Share, bootstrap


def test_bootstrap_interval_holds_the_mean_and_shrinks_with_the_count() -> None:
    rng = np.random.default_rng(0)
    few, many = (bootstrap(rng.normal(3.0, 1.0, count)) for count in (20, 2000))
    for interval in (few, many):
        assert interval.low < interval.value < interval.high
    assert many.high - many.low < 0.2 * (few.high - few.low)
    # of 2000 draws with deviation 1 the mean's interval is 2 * 1.96 / sqrt(2000) wide
    assert many.high - many.low == pytest.approx(2 * 1.96 / 2000**0.5, rel=0.15)


def test_bootstrap_leaves_out_what_is_not_a_number() -> None:
    assert bootstrap([1.0, float("nan"), 3.0], np.median) == bootstrap([1.0, 3.0], np.median)
    assert bootstrap([]).count == 0


def test_a_report_is_saved_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(
        "title", [{"what": "a", "share": Interval(0.5, 0.4, 0.6, 10), "none": None}], [{"clip": "x"}], {"split": "test"}
    )
    saved = json.loads(report.save(tmp_path / "deep" / "report.json").read_text())
    assert saved["rows"][0]["share"] == {"kind": "interval", "value": 0.5, "low": 0.4, "high": 0.6, "count": 10}
    assert saved["clips"] == [{"clip": "x"}]
    assert report.markdown().splitlines()[2] == "| a | 0.5 [0.4, 0.6] | - |"
    report.print()
    shown = capsys.readouterr().out
    assert "title" in shown and "[0.4, 0.6]" in shown
    report.print(intervals=False)
    shown = capsys.readouterr().out
    assert "0.5" in shown and "[" not in shown


def test_a_share_is_shown_in_per_cent() -> None:
    assert str(Share(0.25, 0.1, 0.5, 4)) == "25 % [10, 50]"
    assert Share(0.25, 0.1, 0.5, 4).short() == "25 %"
