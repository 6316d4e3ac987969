"""Jobs from inputs, and rows that go to a journal and come back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from apps.batch.jobs import Job, Row, plan
from apps.inputs import Input
from hooks import AudioFileError
from steer.recipe import Recipe

FULL = Row("x/a.wav", "in/a.wav", "no", "ab", (1, 2), "cd", "ef", (3, 4), 5.0, 6.0, {"text": "é"})


def planned(inputs: list[Input], out: Path | None) -> list[Job]:
    def target_of(name: Path) -> Path:
        return name.with_name(f"{name.name}.txt")

    return plan(inputs, out, target_of, lambda name: None, lambda one: (None, "f"))


def inputs_in(folder: Path, *names: str) -> list[Input]:
    return [Input(folder / name, Path(name), folder) for name in names]


def test_the_tree_is_kept(tmp_path: Path) -> None:
    jobs = planned(inputs_in(tmp_path / "in", "a.wav", "deep/b.wav"), tmp_path / "out")
    assert [job.key for job in jobs] == ["a.wav.txt", "deep/b.wav.txt"]
    assert jobs[1] == Job(
        tmp_path / "in/deep/b.wav", tmp_path / "out/deep/b.wav.txt", "deep/b.wav.txt", fingerprint="f"
    )


def test_two_files_for_one_place(tmp_path: Path) -> None:
    inputs = inputs_in(tmp_path / "1", "a.wav") + inputs_in(tmp_path / "2", "a.wav")
    with pytest.raises(AudioFileError, match="2/a.wav and .*1/a.wav would both be written to .*a.wav.txt"):
        planned(inputs, tmp_path / "out")


def test_results_inside_the_input_are_not_read(tmp_path: Path) -> None:
    inputs = inputs_in(tmp_path, "a.wav", "out/a.wav", "out/deep/b.wav")
    assert [job.key for job in planned(inputs, tmp_path / "out")] == ["a.wav.txt"]
    with pytest.raises(AudioFileError, match="all its sound files lie in"):
        planned(inputs[1:], tmp_path / "out")


def test_a_file_is_no_folder_to_write_to(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(AudioFileError, match="is a file; several inputs need a folder"):
        planned(inputs_in(tmp_path, "a.wav"), tmp_path / "out")


def test_without_an_output_each_job_has_a_key_of_its_own(tmp_path: Path) -> None:
    """Also a source that a manifest lists twice, with a recipe each."""
    twice = [Input(tmp_path / "a.wav", Path(name), tmp_path) for name in ("1.wav", "2.wav")]
    jobs = planned([*twice, *inputs_in(tmp_path, "b.wav")], None)
    assert [job.key for job in jobs] == [
        f"{tmp_path}/a.wav as 1.wav",
        f"{tmp_path}/a.wav as 2.wav",
        f"{tmp_path}/b.wav",
    ]
    assert all(job.target is None for job in jobs)


def test_a_job_for_a_process_in_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = Recipe()
    job = Job(Path("a.wav"), Path("out/a.wav"), "a.wav", Path("p/a.png"), recipe, "f")
    moved = job.absolute()
    assert moved == Job(tmp_path / "a.wav", tmp_path / "out/a.wav", "a.wav", tmp_path / "p/a.png", recipe, "f")
    assert Job(Path("a.wav")).absolute() == Job(tmp_path / "a.wav")


def test_rows_come_back_as_they_went() -> None:
    for row in (FULL, Row("a", "b")):
        assert Row.of(json.loads(json.dumps(row.to_dict()))) == row


def test_what_a_later_version_writes_is_left_out() -> None:
    assert Row.of({**FULL.to_dict(), "mood": "good"}) == FULL


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"key": "a"},
        {"key": ["a"], "source": "b"},
        {"key": "a", "source": "b", "read": 3},
        {"key": "a", "source": "b", "read": [1]},
        {"key": "a", "source": "b", "read": [float("inf"), 1]},
        {"key": "a", "source": "b", "result": 3},
    ],
)
def test_values_that_are_no_row(values: dict[str, object]) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError)):
        Row.of(values)


def test_a_complaint_names_the_file_once() -> None:
    assert Row("k", "a.wav", "too short").complaint() == "a.wav: too short"
    assert Row("k", "a.wav", "a.wav: no such file").complaint() == "a.wav: no such file"
