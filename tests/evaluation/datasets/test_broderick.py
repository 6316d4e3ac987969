"""The layout of Broderick et al.'s data set."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from evaluation.datasets import CORPORA
from evaluation.datasets.corpus import CorpusError, Request, write_rows
from evaluation.eeg_dataset import eeg_dataset, listening


def laid_out(folder: Path, subjects: int = 2, runs: int = 16) -> Path:
    root = folder / "Natural Speech"
    for subject in range(1, subjects + 1):
        (root / "EEG" / f"Subject{subject}").mkdir(parents=True)
        for run in range(1, runs + 1):
            (root / "EEG" / f"Subject{subject}" / f"Subject{subject}_Run{run}.mat").touch()
    (root / "Stimuli").mkdir()
    for run in range(1, runs + 1):
        (root / "Stimuli" / f"audio{run}.wav").touch()
    return folder


def test_rows(tmp_path: Path) -> None:
    root = laid_out(tmp_path)
    (root / "Natural Speech" / "Stimuli" / "audio3.wav").unlink()
    found = CORPORA["broderick"].read(Request(root))
    assert found.missing == ["audio3.wav"]
    assert len(found.rows) == 2 * 14  # without run 15, whose EEG is out of step, and without run 3
    split_of = {row["run"]: row["split"] for row in found.rows}
    assert list(split_of) == ["1", "2", *map(str, range(4, 15)), "16"]
    assert [run for run, split in split_of.items() if split == "dev"] == ["1", "2", "7", "8", "12", "13"]
    manifest = tmp_path / "manifest.csv"
    write_rows(found.rows, tmp_path, manifest)
    first = next(csv.DictReader(manifest.open()))
    assert first["eeg"] == "Natural Speech/EEG/Subject1/Subject1_Run1.mat"
    assert first["audio"] == "Natural Speech/Stimuli/audio1.wav"
    # what the evaluator reads
    assert len(listening(eeg_dataset(manifest, {}, {})).rows) == 28


def test_folders_without_it(tmp_path: Path) -> None:
    read = CORPORA["broderick"].read
    with pytest.raises(CorpusError, match="no Natural Speech or EEG there"):
        read(Request(tmp_path))
    root = laid_out(tmp_path)
    for path in root.rglob("*.wav"):
        path.unlink()
    with pytest.raises(CorpusError, match=r"no audioR\.wav there; the sound is not in the public part"):
        read(Request(root))
    for path in root.rglob("*.mat"):
        path.unlink()
    with pytest.raises(CorpusError, match=r"no SubjectS_RunR\.mat there"):
        read(Request(root))
