from __future__ import annotations

import json
from pathlib import Path

import pytest

from evaluation.report import Interval, Report, Share


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
