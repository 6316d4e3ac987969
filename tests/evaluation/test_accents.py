"""Synthetic accents: the same words by the same voices in both, and neither in two splits."""

from __future__ import annotations

import csv
import shutil
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from evaluation import accents
from evaluation.accents import ACCENTS, SENTENCES, VARIANTS, shared_out, speak, synthetic_accents
from evaluation.config import EvaluationError
from evaluation.confounds import check_confounds
from evaluation.dataset import Dataset


@pytest.fixture
def spoken(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """In place of espeak-ng: what would be spoken."""
    calls: list[tuple] = []

    def note(text: str, voice: str, speed: int, pitch: int, path: Path) -> None:
        calls.append((text, voice, speed, pitch))
        path.write_bytes(b"")

    monkeypatch.setattr(accents, "speak", note)
    return calls


def test_only_the_accent_differs(spoken: list[tuple], tmp_path: Path) -> None:
    manifest = synthetic_accents(tmp_path / "accents", 200)
    with manifest.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert Counter(row["accent"] for row in rows) == {"en-us": 100, "en-gb": 100}
    pairs = defaultdict(list)
    for row, (text, voice, *manner) in zip(rows, spoken, strict=True):
        assert (row["text"], voice) == (text, row["accent"] + ("" if row["group"] == "default" else row["group"]))
        pairs[row["text"], row["group"], row["split"]].append((row["accent"], manner))
    # words, voice, speed and pitch are the same in both
    assert all([accent for accent, _ in two] == list(ACCENTS) and two[0][1] == two[1][1] for two in pairs.values())
    for column in ("text", "group"):
        places = defaultdict(set)
        for row in rows:
            places[row[column]].add(row["split"])
        assert all(len(splits) == 1 for splits in places.values())
    assert Counter(row["split"] for row in rows) == {"train": 120, "valid": 40, "test": 40}
    # no voice and no sentence tells the accent: the accent is not a function of either
    sounds = Dataset(manifest.parent).sounds(None, "train", labels=("accent", "group"))
    assert check_confounds("accent", sounds, [sound.labels["accent"] for sound in sounds]) == ""


def test_what_is_there_is_not_made_again(spoken: list[tuple], tmp_path: Path) -> None:
    synthetic_accents(tmp_path, 20)
    count = len(spoken)
    assert synthetic_accents(tmp_path, 20).is_file()
    assert len(spoken) == count


def test_forty_sentences_shared_out() -> None:
    assert len(set(SENTENCES)) == 40
    assert len(set(VARIANTS)) == len(VARIANTS)
    found = shared_out(SENTENCES, np.random.default_rng(0))
    assert [len(found[split]) for split in ("train", "valid", "test")] == [24, 8, 8]
    assert sorted(text for texts in found.values() for text in texts) == sorted(SENTENCES)


def test_espeak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("espeak-ng"):
        speak("A bath.", "en-gb+f2", 150, 50, tmp_path / "a.wav")
        assert (tmp_path / "a.wav").stat().st_size > 10_000
        with pytest.raises(EvaluationError, match="espeak-ng failed with voice none"):
            speak("A bath.", "none", 150, 50, tmp_path / "b.wav")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EvaluationError, match="espeak-ng is not installed"):
        speak("A bath.", "en-gb", 150, 50, tmp_path / "a.wav")
