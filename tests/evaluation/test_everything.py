from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evaluation.config import Config
from evaluation.evaluators import EVALUATORS
from evaluation.everything import Planned, draw, summarise
from evaluation.frame import write
from evaluation.report import Interval, Needed, Report, Row, Share


def about(value: float, kind: type[Interval] = Share) -> Interval:
    return kind(value, value - 0.05, value + 0.05, 40)


def method(name: str, alarms: float, wer: float) -> Row:
    fewer, change = about(1 - alarms / 0.8), about(100 * (wer - 0.2), Interval)
    rest = {"fewer": None, "WER change": None} if name == "baseline" else {"fewer": fewer, "WER change": change}
    return {"method": name, "false alarms": about(alarms), "words/min": about(9.0, Interval), "WER": about(wer), **rest}


@pytest.fixture
def reports(tmp_path: Path) -> dict[str, Report]:
    """As they come from files."""
    methods = [("baseline", 0.8, 0.2), ("SAE steering", 0.08, 0.203), ("Silero VAD gate", 0.4, 0.25)]
    needed: dict[str, Any] = {"needed": about(0.15), "random": about(0.7), "left": about(0.1)}
    needed["others keep"] = about(0.95)
    one: dict[str, Any] = {
        "needed": Needed(1.0, 1.0, 1.0, 40, False),
        "random": None,
        "left": None,
        "others keep": None,
    }
    measures = ("decoder cosine >= 0.7", "correlation >= 0.7", "firing overlap >= 0.5")
    stable = {"matched": about(0.6), "in every seed": about(0.5), "control": about(0.1)}
    sites = [{"site": site, "measure": measure, **stable} for site in ("ear.0", "ear.1") for measure in measures]
    plain, through = about(0.2), {"WER": about(0.22), "change": about(2.0, Interval)}
    made = {
        "false-alarms": [method(*row) for row in methods],
        "ablation-sound-ear.0": [{"concept": "sound=rain", **one}, {"concept": "mean of 2", **needed}],
        "ablation-speech-ear.0": [{"concept": "speech=yes", **one}],
        "stability": sites,
        "downstream": [{"site": "as it is", "seed": None, "WER": plain, "change": None}]
        + [{"site": "ear.1", "seed": seed, **through} for seed in (None, 3)],
    }
    for name, rows in made.items():
        write(Report(name, rows), tmp_path, name)
    return {name: Report.load(tmp_path / f"{name}.json") for name in made}


@pytest.fixture
def planned(reports: dict[str, Report]) -> dict[str, Planned]:
    of = {name: next(one for one in EVALUATORS if name.startswith(one)) for name in reports}
    return {name: Planned(EVALUATORS[one], Config(audio=Path())) for name, one in of.items()}


def test_the_main_numbers(reports: dict[str, Report], planned: dict[str, Planned]) -> None:
    summary = summarise("listener", reports, planned, {"model": "listener"})
    told = {(row["evaluation"], row["number"]): (str(row["result"]), row["beside it"]) for row in summary.rows}
    assert told["false-alarms", "clips without speech in which words are written"] == (
        "8 % [3, 13]",
        "unedited 80 % [75, 85]",
    )
    assert told["false-alarms", "of these gone"] == ("90 % [85, 95]", "Silero VAD gate 50 %")
    assert told["false-alarms", "WER change in points"] == ("0.3 [0.25, 0.35]", "Silero VAD gate +5")
    # of several concepts their mean, of one itself
    assert told["ablation-sound-ear.0", "features needed, mean of 2"] == ("15 % [10, 20]", "random 70 % [65, 75]")
    assert told["ablation-sound-ear.0", "what is left of the concept"] == ("10 % [5, 15]", None)
    assert told["ablation-sound-ear.0", "what other concepts keep"] == ("95 % [90, 100]", None)
    assert told["ablation-speech-ear.0", "features needed, speech=yes"] == ("not reached", None)
    assert told["stability", "features matched at ear.1, correlation >= 0.7"] == (
        "60 % [55, 65]",
        "in every seed 50 % [45, 55]; control 10 % [5, 15]",
    )
    assert told["downstream", "WER through the SAE at ear.1"] == ("22 % [17, 27]", "unedited 20 % [15, 25]")
    assert summary.markdown().count("\n") == 1 + len(summary.rows)


def test_the_picture_has_a_panel_for_each(reports: dict[str, Report], planned: dict[str, Planned]) -> None:
    pytest.importorskip("matplotlib", reason="extra eval")
    titles = [axes.get_title() for axes in draw(reports, planned, "listener").axes if axes.get_visible()]
    assert titles == [
        "Words where nobody speaks",
        "Word errors where somebody speaks",
        "Features ablated until a concept is gone",
        "stability",
        "WER through the SAE's reconstruction",
    ]
    (axes,) = [axes for axes in draw({"stability": reports["stability"]}, planned, "").axes if axes.get_visible()]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["ear.0", "ear.1"]
