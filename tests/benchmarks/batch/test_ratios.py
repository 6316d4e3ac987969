"""The batch's benchmark: its arithmetic, its sounds, and one quick run through all ways of doing a folder."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from apps.batch.jobs import BatchError
from benchmarks.batch import ratios
from benchmarks.batch.kinds import kinds
from benchmarks.batch.ratios import (
    BETTER,
    HERE_1,
    HERE_2,
    LOOP_1,
    LOOP_2,
    RATIOS,
    WORKER,
    WORKERS,
    fill,
    link_recordings,
    make_sounds,
    rows_of,
    timed,
)
from hooks import AudioFileError
from hooks.clip import audio_info


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    app.command()(ratios.main)
    return app


def test_ratios_are_medians_of_rounds_and_say_whether_the_aim_is_reached() -> None:
    seconds = {
        LOOP_1: [10.0, 10.0, 10.0],
        LOOP_2: [9.0, 8.0, 100.0],
        HERE_1: [8.0, 8.0, 8.0],
        HERE_2: [6.0, 6.0, 6.0],
        WORKER: [9.0, 9.0, 9.0],
        WORKERS: [6.0, 4.0, 5.0],
    }
    rows = {row["what"]: row for row in rows_of("edit", "all 1 s", seconds)}
    assert rows["2 workers against 1"]["times as fast"].value == pytest.approx(1.8)
    assert rows["2 workers against 1"]["reached"] == "yes"
    assert rows["overlap and batches, 1 thread"]["times as fast"].value == pytest.approx(1.25)
    assert rows["overlap and batches, 1 thread"]["aim"] is None
    assert rows["2 threads against the loop"]["times as fast"].value == pytest.approx(1.5)
    # of the ratios 1.5, 2 and 20 the middle one
    assert rows[BETTER]["times as fast"].value == pytest.approx(2.0)
    assert rows[BETTER]["s"] == 5.0
    assert rows[BETTER]["reached"] == "yes"


def test_every_round_starts_with_another_and_the_first_does_not_count(tmp_path: Path) -> None:
    ran: list[str] = []
    places: set[Path] = set()

    def run_of(name: str) -> Callable[[Path], None]:
        def run(out: Path) -> None:
            ran.append(name)
            places.add(out)

        return run

    seconds = timed({name: run_of(name) for name in "ab"}, 3, tmp_path)
    assert "".join(ran) == "abbaab"
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}
    assert len(places) == 6 and not any(place.exists() for place in places)
    assert len(timed({"a": run_of("a")}, 1, tmp_path)["a"]) == 1


def test_sounds_are_of_mixed_and_of_equal_lengths(tmp_path: Path) -> None:
    kind = kinds()["edit"]
    made = make_sounds(tmp_path, "edit", kind, 3, None)
    seconds = {name: sorted(audio_info(path).seconds for path in folder.iterdir()) for name, folder in made.items()}
    assert list(seconds) == ["0.3 to 5 s", "all 2.5 s"]
    assert seconds["0.3 to 5 s"] == pytest.approx([0.3, 1.5**0.5, 5.0], abs=1e-4)
    assert seconds["all 2.5 s"] == [2.5] * 3


def test_recordings_of_the_kinds_lengths_are_taken_evenly(tmp_path: Path, sound: Callable[..., Path]) -> None:
    lengths = (0.1, 0.5, 1.0, 2.0, 4.0, 6.0)
    paths = [sound(f"digits/{seconds:g}.wav", seconds, 8_000) for seconds in lengths]
    with (tmp_path / "digits" / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "split", "label"), *((path.name, "valid", "") for path in paths)])
    folder = tmp_path / "links"
    folder.mkdir()
    link_recordings(folder, kinds()["edit"], ("digits",), 2, tmp_path)
    assert [audio_info(path).seconds for path in sorted(folder.iterdir())] == [0.5, 2.0]
    with pytest.raises(AudioFileError, match=r"no recordings of 20 to 30 s"):
        link_recordings(folder, longer(), ("digits",), 2, tmp_path)


def longer() -> ratios.Kind:
    return replace(kinds()["edit"], shortest_s=20.0, longest_s=30.0)


def test_quick_goes_all_ways(tmp_path: Path, app: typer.Typer) -> None:
    threads = torch.get_num_threads()
    result = CliRunner().invoke(app, ["--quick", "--tasks", "edit", "--out", str(tmp_path / "table.json")])
    assert result.exit_code == 0, result.output
    table = json.loads((tmp_path / "table.json").read_text())
    assert [row["what"] for row in table["rows"]] == [*RATIOS, BETTER]
    assert all(row["times as fast"]["value"] > 0 for row in table["rows"])
    assert set(table["clips"][0]["seconds"]) == {LOOP_1, LOOP_2, HERE_1, HERE_2, WORKER, WORKERS}
    assert table["about"]["versions"]["distributed"]
    assert torch.get_num_threads() == threads


def test_costs_go_between_the_marks_of_a_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- costs -->\nold\n<!-- end of costs -->\nafter\n")
    for text in ("new", "newer"):
        fill(page, text)
        assert page.read_text() == f"before\n<!-- costs -->\n\n{text}\n\n<!-- end of costs -->\nafter\n"
    page.write_text("before\n<!-- costs -->\n")
    with pytest.raises(BatchError, match="no lines"):
        fill(page, "new")
    assert page.read_text() == "before\n<!-- costs -->\n"


def test_a_task_that_is_not_there_is_refused(app: typer.Typer) -> None:
    result = CliRunner().invoke(app, ["--tasks", "sing"])
    assert result.exit_code == 2
    assert "there is no task sing" in result.output
