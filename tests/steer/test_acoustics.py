from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from steer.acoustics import change, measure

RATE = 24_000


def tone(hz: float = 220.0, seconds: float = 1.0, harmonics: int = 1) -> Tensor:
    time = torch.arange(int(seconds * RATE)) / RATE
    return 0.1 * sum(torch.sin(2 * torch.pi * hz * k * time) / k for k in range(1, harmonics + 1))[None]


def test_loudness_of_a_sine_is_its_rms() -> None:
    assert measure(tone(), RATE, pitch=False).loudness_db == pytest.approx(20 * np.log10(0.1 / 2**0.5), abs=1e-3)


def test_gain_changes_loudness_only() -> None:
    sound = tone(harmonics=5)
    changes = change(measure(sound, RATE, pitch=False), measure(2 * sound, RATE, pitch=False))
    assert changes["loudness"] == pytest.approx(20 * np.log10(2), abs=1e-4)
    assert changes["brightness"] == pytest.approx(0.0, abs=1e-3)  # rounding of the spectra
    assert changes["pitch"] is None


def test_centroid_of_a_sine_is_its_frequency_and_equals_librosa() -> None:
    librosa = pytest.importorskip("librosa", reason="extra eval")
    # a window of 40 ms spreads a sine over some 50 Hz around it, which is cut at 0 Hz
    assert measure(tone(1000.0), RATE, pitch=False).centroid_hz == pytest.approx(1000.0, rel=0.02)
    noise = 0.1 * torch.randn(1, RATE)
    theirs = librosa.feature.spectral_centroid(y=noise[0].numpy(), sr=RATE, n_fft=960, hop_length=240).mean()
    # the frames lie differently and theirs count the padded ends
    assert measure(noise, RATE, pitch=False).centroid_hz == pytest.approx(theirs, rel=0.02)


def test_silence_around_a_sound_does_not_change_its_centroid() -> None:
    noise = 0.1 * torch.randn(1, RATE)
    padded = torch.cat([torch.zeros(1, RATE), noise, 1e-4 * torch.randn(1, RATE)], dim=1)
    plain, gated = (measure(x, RATE, pitch=False).centroid_hz for x in (noise, padded))
    assert gated == pytest.approx(plain, rel=0.02)  # a frame at either edge is half noise


def test_pitch_in_notes_and_its_change_in_semitones() -> None:
    pytest.importorskip("torchcrepe", reason="extra eval")
    low, high = (measure(tone(hz, harmonics=8), RATE) for hz in (220.0, 220.0 * 2 ** (2 / 12)))
    assert low.pitch_midi == pytest.approx(57.0, abs=0.2)  # CREPE's bins are 0.2 semitones wide
    assert change(low, high)["pitch"] == pytest.approx(2.0, abs=0.2)
    assert low.voiced > 0.9


def test_noise_has_no_pitch_to_compare() -> None:
    pytest.importorskip("torchcrepe", reason="extra eval")
    silence = measure(torch.zeros(1, RATE), RATE)
    assert silence.pitch_midi is None
    assert silence.voiced == 0.0
    assert change(silence, measure(tone(), RATE))["pitch"] is None


def test_very_short_sounds_are_measured() -> None:
    short = measure(tone(seconds=0.005), RATE)
    assert short.lufs is None
    assert np.isfinite(short.loudness_db)


def test_lufs_of_a_louder_sound_rises_by_as_much() -> None:
    pytest.importorskip("pyloudnorm", reason="extra eval")
    quiet, loud = (measure(gain * tone(1000.0), RATE, pitch=False).lufs for gain in (1.0, 2.0))
    assert quiet is not None
    assert loud is not None
    assert loud - quiet == pytest.approx(6.02, abs=0.01)
