"""Manifests of EEG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evaluation.brain import BrainError
from evaluation.eeg_dataset import Listening, eeg_dataset, listening
from hooks import AudioFileError

pytest.importorskip("scipy", reason="extra eeg")
HEAD = "subject,run,audio,eeg,start_s,split"


def written(folder: Path, *lines: str, head: str = HEAD) -> Path:
    (folder / "list.csv").write_text("\n".join([head, *lines]))
    return folder / "list.csv"


def read(path: Path, limit: int | None = None, **columns: str) -> Listening:
    return listening(eeg_dataset(path, columns, {}), limit)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two subjects, four runs: EEG is noise, the sounds are empty files."""
    rng = np.random.default_rng(0)
    for run in range(4):
        (tmp_path / f"{run}.wav").touch()
        for subject in "ab":
            np.savez(tmp_path / f"{subject}{run}.npz", eeg=rng.standard_normal((1000 - 10 * run, 1)), fs=64)
    return tmp_path


LINES = [
    f"{subject},{run},{run}.wav,{subject}{run}.npz,,{'dev' if run % 2 else 'test'}"
    for subject in "ab"
    for run in range(4)
]


def test_rows_become_a_study(folder: Path) -> None:
    rows = read(written(folder, *LINES))
    assert list(rows.audio) == ["1", "3", "0", "2"]  # dev first
    study = rows.study("1", dict.fromkeys("0123", 15.0), 64, (1, 8), "none")
    assert (study.subjects, study.development, study.test) == (("a", "b"), ("1", "3"), ("0", "2"))
    assert study.eeg["0"].shape == (2, 960) and study.present["2"] == (0, 1)
    assert list(read(written(folder, *LINES), 1).audio) == ["1", "0"]


def test_columns_of_other_names(folder: Path) -> None:
    path = written(folder, *LINES, head="who,run,sound,eeg,start_s,split")
    assert read(path, subject="who", audio="sound").rows == read(written(folder, *LINES)).rows


def test_a_run_that_ends_early_for_one_is_cut_for_all(folder: Path) -> None:
    np.savez(folder / "b1.npz", eeg=np.random.default_rng(0).standard_normal((940, 1)), fs=64)
    study = read(written(folder, *LINES)).study("1", dict.fromkeys("0123", 15.0), 64, (1, 8), "none")
    assert study.eeg["1"].shape == (2, 940)


def test_results_depend_on_the_eeg(folder: Path) -> None:
    files = eeg_dataset(written(folder, *LINES), {}, {}).files("list")
    assert {"list.csv", "a0.npz", "b3.npz", "2.wav"} <= set(files)


def test_manifests_that_make_no_sense(folder: Path) -> None:
    def failing(*lines: str) -> str:
        with pytest.raises(BrainError) as error:
            read(written(folder, *lines))
        assert "\n" not in str(error.value)
        return str(error.value)

    first, *others = LINES
    assert "row 2: no audio" in failing("a,0,,a0.npz,,test", *others)
    assert "row 2: no eeg" in failing("a,0,0.wav,,,test", *others)
    assert "row 2: split 'train' is neither dev nor test" in failing("a,0,0.wav,a0.npz,,train", *others)
    assert "row 2: start_s is '-1'" in failing("a,0,0.wav,a0.npz,-1,test", *others)
    assert "row 2: start_s is 'soon'" in failing("a,0,0.wav,a0.npz,soon,test", *others)
    assert "row 3: run 0 has another sound or split" in failing(first, "b,0,1.wav,b0.npz,,test")
    assert "row 3: run 0 has another sound or split" in failing(first, "b,0,0.wav,b0.npz,,dev")
    assert "row 10: subject a has run 0 in an earlier row" in failing(*LINES, first)
    assert "t-tests over subjects need two or more, and all rows are of one" in failing(*LINES[:4])
    (folder / "a0.npz").unlink()
    assert "subject a, run 0: there is no EEG file" in failing(*LINES)
    (folder / "0.wav").unlink()
    assert "subject a, run 0: there is no sound" in failing(*LINES)
    with pytest.raises(AudioFileError, match="needs rows with the columns audio and eeg and run and split and subject"):
        read(written(folder, "a,0", head="subject,run"))
