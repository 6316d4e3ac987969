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
from apps.batch.report import LISTED, SHOWN, BatchReport, Change, check_names
from apps.batch.watch import Work
from hooks import AudioFileError


def edited(key: str, loudness: float | None, goal: float | None = None, met: bool = True, **values: Any) -> Row:
    measured = {"loudness": loudness, "pitch": None, "brightness": 2.0}
    requested = {} if goal is None else {"loudness": goal}
    return Row(key, f"in/{key}", result={"measured": measured, "requested": requested, "met": met}, **values)


ROWS = [
    edited("a.wav", 1.0, 3.0, False, seconds=10.0, took=1.0),
    edited("b.wav", 4.0, 3.0, seconds=20.0, took=2.0),
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
        Change("loudness", files=3, median=1.0, least=-2.0, most=4.0, asked=2, met=1),
        Change("brightness", files=4, median=2.0, least=2.0, most=2.0, asked=0, met=0),
    ]
    told = report.to_dict()
    assert (told["files"], told["done"], told["failed"], told["sound_s"]) == (5, 4, 1, 90.5)
    assert told["this_call"] == {"files": 3, "failed": 1, "seconds": 80.0, "wall": 4.0, "sound_s_per_s": 20.0}
    assert told["failures"] == [{"source": ROWS[4].source, "target": "<script>.wav", "error": ROWS[4].error}]
    assert report.headline() == "4 of 5 files edited"


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
    assert ["loudness", "+1.00 dB", "-2.00 dB", "+4.00 dB", "3", "1 of 2"] in page.rows
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
