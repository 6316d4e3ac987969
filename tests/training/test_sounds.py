from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from training import sounds

RATE = 24_000


def strongest_hz(waveform: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    return float(np.argmax(spectrum) * RATE / len(waveform))


def test_tones_come_with_exact_copies_at_other_pitches() -> None:
    for seed in range(5):
        sound = sounds.make_tone(1.0, RATE, np.random.default_rng(seed), [-2.0, 2.0])
        assert [semitones for semitones, _ in sound.shifted] == [-2.0, 2.0]
        for _, copy in sound.shifted:
            assert copy.shape == sound.waveform.shape
            assert sounds.rms(copy) == pytest.approx(sounds.rms(sound.waveform), rel=0.05)  # clipping at full scale
            assert np.abs(copy).max() <= 1


def test_noise_is_finite_and_within_full_scale() -> None:
    noise = sounds.make_noise(1.0, RATE, np.random.default_rng(0))
    assert np.isfinite(noise.waveform).all()
    assert 0.005 < sounds.rms(noise.waveform) < 0.2


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    folder = tmp_path / "audio" / "notes"
    folder.mkdir(parents=True)
    time = np.arange(RATE) / RATE
    tone = 0.1 * sum(np.sin(2 * np.pi * 220 * k * time) / k for k in range(1, 6))
    for split in ("train", "test"):
        soundfile.write(folder / f"{split}.wav", tone, RATE)
    (folder / "manifest.csv").write_text("path,split,label,text\ntrain.wav,train,a3,\ntest.wav,test,a3,\n")
    return folder.parent


def test_only_the_split_that_was_asked_for_is_read(audio: Path) -> None:
    assert [path.name for _, path, _ in sounds.read_rows(audio, "train")] == ["train.wav"]


def test_shifting_moves_the_pitch_and_nothing_else(audio: Path) -> None:
    if shutil.which("rubberband") is None:
        pytest.skip("the program rubberband is not installed")
    tone = sounds.read_mono(audio / "notes" / "train.wav", RATE)
    shifted = sounds.shift_pitch(tone, RATE, 3.0)
    assert len(shifted) == len(tone)
    assert strongest_hz(shifted[4000:-4000]) == pytest.approx(220 * 2 ** (3 / 12), rel=0.01)
    assert sounds.rms(shifted) == pytest.approx(sounds.rms(tone), rel=1e-3)


def test_the_cache_gives_back_what_was_collected(audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [
        sounds.make_tone(0.2, RATE, np.random.default_rng(0), [1.0]),
        sounds.make_noise(0.2, RATE, np.random.default_rng(0)),
    ]
    monkeypatch.setattr(sounds, "collect", lambda *args, **kwargs: made)
    first = sounds.cached(audio, tmp_path, RATE)
    monkeypatch.setattr(sounds, "collect", lambda *args, **kwargs: pytest.fail("collected again"))
    for sound, again, original in zip(first, sounds.cached(audio, tmp_path, RATE), made, strict=True):
        assert again.group == original.group
        assert np.array_equal(sound.waveform, again.waveform)
        assert np.abs(again.waveform - original.waveform).max() < 1e-4  # 16 bits
        assert [s for s, _ in again.shifted] == [s for s, _ in original.shifted]


def test_a_missing_program_is_named(audio: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sounds.shutil, "which", lambda program: None)
    with pytest.raises(FileNotFoundError, match="rubberband"):
        sounds.collect(audio, RATE)
