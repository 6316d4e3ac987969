"""What a batch came to: exact counts, and pages that no file name can break."""

from __future__ import annotations

import io
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from apps.batch.jobs import BatchError, Row
from apps.batch.report import LISTED, SHOWN, BatchReport, Change, SideEffect, check_names
from apps.batch.watch import Work
from apps.messages import shown
from hooks import AudioFileError


def edited(key: str, loudness: float | None, goal: float | None = None, **values: Any) -> Row:
    """As in a journal of an older version."""
    measured = {"loudness": loudness, "pitch": None, "brightness": 2.0}
    requested = {} if goal is None else {"loudness": goal}
    result = {"measured": measured, "requested": requested, "met": True, **values.pop("result", {})}
    return Row(key, f"in/{key}", result=result, **values)


def detailed(key: str, round_trip: float, stoi: float, **result: Any) -> Row:
    """Of this version, with what else changed."""
    trip = {"loudness": round_trip, "pitch": None, "brightness": 5.0}
    kept = {"stoi": stoi, "above_band_db": None, "outside_unchanged": False}
    return edited(key, 3.0, 3.0, result={"round_trip": trip, "kept": kept, "limited_db": 0.0, "clipped": 0, **result})


ROWS = [
    edited("a.wav", 1.0, 3.0, seconds=10.0, took=1.0),
    edited("b.wav", 3.4, 3.0, seconds=20.0, took=2.0),
    edited("c.wav", -2.0, seconds=60.0, took=3.0),
    edited("d.wav", None, seconds=0.5),
    Row("<script>.wav", "in/<script>.wav", "in/<script>.wav: no & never [bold]", seconds=99.0),
]
WORK = Work(files=3, failed=1, seconds=80.0, wall=4.0)


class Page(HTMLParser):
    """Well-formed, and its rows of cells."""

    VOID = ("meta",)

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.rows: list[list[str]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def test_counts_and_changes() -> None:
    report = BatchReport("edited", ROWS, WORK)
    assert report.failures == ROWS[4:] and report.seconds == 90.5
    assert report.changes == [
        Change("loudness", files=3, median=1.0, least=-2.0, most=3.4, asked=2, met=1),
        Change("brightness", files=4, median=2.0, least=2.0, most=2.0, asked=0, met=0),
    ]
    told = report.to_dict()
    assert (told["files"], told["done"], told["failed"], told["sound_s"]) == (5, 4, 1, 90.5)
    assert told["this_call"] == {"files": 3, "failed": 1, "seconds": 80.0, "wall": 4.0, "sound_s_per_s": 20.0}
    assert told["failures"] == [{"source": ROWS[4].source, "target": "<script>.wav", "error": ROWS[4].error}]
    assert report.headline() == "4 of 5 files edited"


def test_each_goal_is_met_by_itself() -> None:
    """A file that misses one of two goals has met the other."""
    requested = {"loudness": 3.0, "pitch": 2.0}
    row = Row("a", "a", result={"measured": {"loudness": 3.1, "pitch": 0.5}, "requested": requested, "met": False})
    unmeasured = Row(
        "b", "b", result={"measured": {"loudness": None, "pitch": 2.2}, "requested": requested, "met": False}
    )
    changes = {change.name: change for change in BatchReport("edited", [row, unmeasured]).changes}
    assert (changes["loudness"].asked, changes["loudness"].met) == (2, 1)
    assert (changes["pitch"].asked, changes["pitch"].met) == (2, 1)


def test_the_round_trip_and_what_else_changed() -> None:
    rows = [
        *ROWS,
        detailed("e.wav", 2.5, 0.9, limited_db=1.5),
        detailed("f.wav", 3.5, 0.7),
        detailed("g.wav", 3.0, 0.8, clipped=7),
    ]
    report = BatchReport("edited", rows)
    assert [change.round_trip for change in report.changes] == [3.0, 5.0]
    assert report.side_effects == [
        SideEffect("STOI against the input", files=3, median=0.8, least=0.7, most=0.9),
        SideEffect("limiter", files=1, median=1.5, least=1.5, most=1.5),
        SideEffect("clipped samples", files=1, median=7, least=7, most=7),
    ]
    assert report.to_dict()["side_effects"][0]["median"] == 0.8
    page = Page(report.to_html())
    heads = ["file", "from", "sound (s)", "took (s)", "loudness", "brightness"]
    others = [
        "loudness (round trip)",
        "brightness (round trip)",
        "STOI against the input",
        "limiter",
        "clipped samples",
    ]
    assert heads + others in page.rows
    cells = ["e.wav", "in/e.wav", "0.00", "0.00", "+3.00 dB", "+2.0 %", "+2.50 dB", "+5.0 %", "0.900", "1.50 dB", "–"]
    assert cells in page.rows
    older = ["a.wav", "in/a.wav", "10.00", "1.00", "+1.00 dB", "+2.0 %", "–", "–", "–", "–", "–"]
    assert older in page.rows
    assert ["STOI against the input", "0.800", "0.700", "0.900", "3"] in page.rows
    console = Console(record=True, width=200, file=io.StringIO())
    report.show(console)
    assert "STOI against the input: median 0.800, from 0.700 to 0.900 (3 files)" in console.export_text()


def test_of_nothing() -> None:
    report = BatchReport("edited", [], Work())
    assert report.to_dict()["files"] == 0 and report.changes == [] and "nothing was left to do" in report.sentences()
    Page(report.to_html())
    assert BatchReport("done", ROWS).to_dict()["this_call"] is None


def test_html_is_whole_and_names_are_text() -> None:
    page = Page(BatchReport("edited <b>", ROWS, WORK).to_html())
    assert not {"script", "b", "a", "img", "link"} & page.tags
    assert [ROWS[4].source, ROWS[4].error] in page.rows
    assert ["a.wav", "in/a.wav", "10.00", "1.00", "+1.00 dB", "+2.0 %"] in page.rows
    assert ["loudness", "+1.00 dB", "-2.00 dB", "+3.40 dB", "3", "1 of 2", ""] in page.rows
    assert all(len(row) == len(page.rows[0]) for row in page.rows[:3])


def test_a_page_lists_so_many_and_says_so() -> None:
    rows = [Row(str(number), "x") for number in range(LISTED + 5)]
    text = BatchReport("read", rows).to_html()
    assert f"{LISTED + 5} files done, of which the first {LISTED}" in text
    assert len(Page(text).rows) == LISTED + 1


def test_a_table_lists_the_first_failures_as_they_stand() -> None:
    rows = [Row(str(number), "x", f"bad [red]{number:03}[/red]") for number in range(SHOWN + 7)]
    console = Console(record=True, width=200, file=io.StringIO())
    BatchReport("edited", [*rows, *ROWS]).show(console)
    text = console.export_text()
    assert text.count("x: bad [red]") == SHOWN and "... and 8 more: --report FILE has them all" in text
    assert "4 of 32 files edited" in text and "brightness (drift)" in text


def test_complaints(capsys: pytest.CaptureFixture[str]) -> None:
    with shown():
        BatchReport("edited", [*ROWS, Row("k", "in/k", "ValueError: no")]).complain()
    assert capsys.readouterr().err == f"{ROWS[4].error}\nin/k: ValueError: no\n"


# --- files ---


def test_saved_as_json_and_html(tmp_path: Path) -> None:
    name = "caf\udce9.wav"  # not UTF-8
    nan = Row("n", "n", result={"measured": {"loudness": float("nan")}, "requested": {}, "met": True})
    report = BatchReport("edited", [*ROWS, nan, Row(name, name, f"{name}: no")], WORK)
    for path in (tmp_path / "r.json", tmp_path / "r.HTML", tmp_path / "r.htm"):
        report.save(path)
        report.save(path)  # over the last one
    told = json.loads((tmp_path / "r.json").read_text(), parse_constant=pytest.fail)
    assert told["failures"][1]["source"] == name and told["failed"] == 2
    text = (tmp_path / "r.HTML").read_bytes()
    assert text == (tmp_path / "r.htm").read_bytes() and b"caf\xe9.wav" in text
    assert len(list(tmp_path.iterdir())) == 3


def test_other_endings_and_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(BatchError, match="--report .*r.txt: a report is .html or .json"):
        BatchReport("edited", ROWS).save(tmp_path / "r.txt")
    with pytest.raises(BatchError, match="r.txt"):
        check_names([Path("r.json"), Path("r.txt")])
    (tmp_path / "file").touch()
    with pytest.raises(AudioFileError, match="file: the folder cannot be made"):
        BatchReport("edited", ROWS).save(tmp_path / "file" / "r.json")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    BatchReport("edited", ROWS).save(tmp_path / "new" / "r.json")
    assert (tmp_path / "new" / "r.json").exists()
