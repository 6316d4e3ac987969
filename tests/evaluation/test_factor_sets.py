"""Factors of sounds: eGeMAPS and its families, the free set on sounds of which all is known, and CSV files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation.config import EvaluationError
from evaluation.dataset import LabelledSound
from evaluation.factor_sets import (
    BASIC,
    BASIC_FAMILIES,
    EGEMAPS,
    LICENCE,
    Factors,
    egemaps_family,
    egemaps_names,
    factors_in,
    factors_of,
    hnr_db,
    without_gaps,
)
from hooks import Clip

RATE = 16_000


def sound(samples: np.ndarray, name: str = "s/x.wav") -> LabelledSound:
    return LabelledSound(Clip(torch.from_numpy(np.asarray(samples)).float()[None], RATE), name)


def voice(hertz: float, seconds: float = 0.6, level: float = 0.2) -> np.ndarray:
    """A sum of harmonics, as a voice has them."""
    t = np.arange(int(seconds * RATE)) / RATE
    return level * sum(np.sin(2 * np.pi * hertz * n * t) / n for n in range(1, 20))


def test_families_of_egemaps() -> None:
    pytest.importorskip("opensmile", reason="extra egemaps")
    counts = Counter(map(egemaps_family, egemaps_names()))
    assert counts == {
        "formants": 18, "pitch": 14, "quality": 6, "loudness": 12, "rhythm": 5, "spectral": 17, "mfcc": 16,
    }  # fmt: skip
    assert egemaps_family("logRelF0-H1-H2_sma3nz_amean") == "pitch"
    assert egemaps_family("F1amplitudeLogRelF0_sma3nz_amean") == "formants"
    assert egemaps_family("loudnessPeaksPerSec") == "loudness"


def test_egemaps_of_voices(tmp_path: Path) -> None:
    pytest.importorskip("opensmile", reason="extra egemaps")
    found = factors_of([sound(voice(110)), sound(voice(220))], EGEMAPS, tmp_path)
    assert found.values.shape == (2, 88) and found.notes == [LICENCE]
    column = found.names.index("F0semitoneFrom27.5Hz_sma3nz_amean")
    assert np.diff(found.values[:, column])[0] == pytest.approx(12, abs=0.3)  # an octave
    again = factors_of([sound(voice(220))], EGEMAPS, tmp_path)
    np.testing.assert_allclose(again.values[0], found.values[1], rtol=1e-6)
    with pytest.raises(EvaluationError, match="click.wav: too short for eGeMAPS"):
        factors_of([sound(voice(110)[:300], "s/click.wav")], EGEMAPS)


def test_the_free_set_of_voices_and_noise() -> None:
    pytest.importorskip("librosa", reason="extra eval")
    pytest.importorskip("torchcrepe", reason="extra eval")
    noise = 0.2 * np.random.default_rng(0).normal(size=RATE // 2)
    found = factors_of([sound(voice(220)), sound(voice(220, level=0.02)), sound(noise)], BASIC)
    assert len(found.names) == len(BASIC_FAMILIES) == found.values.shape[1] == 24
    low, soft, noisy = (dict(zip(found.names, row, strict=True)) for row in found.values)
    assert low["level dB, mean"] - soft["level dB, mean"] == pytest.approx(20, abs=0.1)
    assert low["pitch, mean"] == pytest.approx(57, abs=0.3)  # A3
    assert (low["duration"], noisy["duration"]) == (pytest.approx(0.6, abs=1e-3), pytest.approx(0.5, abs=1e-3))
    assert low["voiced share"] > 0.8 > noisy["voiced share"]
    assert low["HNR, mean"] > noisy["HNR, mean"] + 10
    assert noisy["centroid, mean"] == pytest.approx(RATE / 4, rel=0.05)
    assert noisy["flatness, mean"] > 10 * low["flatness, mean"]
    assert noisy["zero crossings, mean"] == pytest.approx(0.5, abs=0.03)
    with pytest.raises(EvaluationError, match=r"s/click.wav: too short for factors \(0.013 s, needed are 0.04 s\)"):
        factors_of([sound(noise[:200], "s/click.wav")], BASIC)


def test_harmonics_over_noise_of_a_known_ratio() -> None:
    rng = np.random.default_rng(0)
    tone = np.sin(2 * np.pi * 200 * np.arange(2 * RATE) / RATE)
    mixed = tone + np.sqrt(0.5 / 10) * rng.normal(size=len(tone))  # 10 dB
    frames = mixed.reshape(-1, RATE // 25)
    assert hnr_db(frames, RATE).mean() == pytest.approx(10, abs=1.5)


def test_clips_without_a_pitch_get_the_mean_of_the_others() -> None:
    values, notes = without_gaps(np.array([[1.0, 5.0], [3.0, np.nan], [2.0, 7.0]]), ["level dB, mean", "pitch, mean"])
    assert values[1].tolist() == [3.0, 6.0]
    assert notes == ["1 clips without pitch have the mean of the others there: pitch, mean"]


def test_constant_factors_are_named_and_left_out() -> None:
    values = np.array([[1.0, 5.0], [1.0, 6.0]])
    found = Factors(["flat", "rising"], ["a", "b"], values, []).varying()
    assert (found.names, found.families, found.values.tolist()) == (["rising"], ["b"], [[5.0], [6.0]])
    assert found.notes == ["constant factors are left out: flat"]
    with pytest.raises(EvaluationError, match="all factors are constant"):
        Factors(["flat"], ["a"], values[:, :1], []).varying()


def test_factors_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    path.write_text("path,f0,rate\ns/a.wav,100,2\nb.wav,200,3\n")
    sounds = [sound(np.ones(10), "s/a.wav"), sound(np.ones(10), "s/b.wav")]
    found = factors_in(path, sounds)
    assert (found.names, found.values.tolist()) == (["f0", "rate"], [[100, 2], [200, 3]])
    with pytest.raises(EvaluationError, match="has no row for s/c.wav"):
        factors_in(path, [sound(np.ones(10), "s/c.wav")])
    path.write_text("path,f0\ns/a.wav,loud\n")
    with pytest.raises(EvaluationError, match="the row of s/a.wav has a cell that is not a finite number"):
        factors_in(path, sounds)
    path.write_text("name,f0\nx,1\n")
    with pytest.raises(EvaluationError, match="needs rows with the column path"):
        factors_in(path, sounds)
    with pytest.raises(EvaluationError, match="there are egemaps and basic, and CSV files"):
        factors_of(sounds, "prosody")
