"""Loudness, spectral centroid and pitch of sound on a site's frame grid: what probes are trained to read.

Frame t of a site stands for the moment (t + 0.5) / frame_rate seconds; each measurement is of a window around it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from hooks.errors import require
from hooks.samples import mixed_to_mono, resampled

FLOOR_DB = -100.0
SILENCE_DB = -60.0
"""Below this level (of full scale) a frame has neither brightness nor pitch."""
CREPE_RATE, CREPE_WINDOW = 16_000, 1024
CREPE_LOWEST_CENTS, CREPE_BIN_CENTS = 1997.3794084376191, 20.0
"""CREPE's bin 0 above 10 Hz, and the width of a bin (arXiv 1802.06182)."""
BLOCK_FRAMES = 2048


def windows(waveform_N: Tensor, sample_rate: float, frame_rate: float, frames: int, length: int) -> Iterator[Tensor]:
    """The samples [t, length] around the centres of all frames, some frames at a time; zeros outside the sound."""
    padded = torch.nn.functional.pad(waveform_N, (length // 2, length))
    offsets = torch.arange(length)
    for first in range(0, frames, BLOCK_FRAMES):
        t = torch.arange(first, min(first + BLOCK_FRAMES, frames), dtype=torch.float64)
        centre = ((t + 0.5) * sample_rate / frame_rate).round().long()
        yield padded[(centre[:, None] + offsets).clamp(max=len(padded) - 1)]


def channels_of(waveform: Tensor) -> Tensor:
    """[C, N] of [N] or [C, N], float32 on the CPU."""
    waveform = waveform.detach().float().cpu()
    return waveform if waveform.ndim == 2 else waveform[None]


def mono(waveform: Tensor) -> Tensor:
    """[N] of [N] or [C, N]: the mean of the channels, or the loudest of them where they cancel each other, as models
    get it (`hooks.samples.mixed_to_mono`)."""
    return mixed_to_mono(channels_of(waveform))[0][0]


def loudness_db(waveform: Tensor, sample_rate: float, frame_rate: float, frames: int, window_s: float = 0.04) -> Tensor:
    """RMS level [frames] in dB of full scale (at least -100) of a waveform [N] or [C, N], in Hann windows.

    Of several channels the mean of their powers: out-of-phase channels do not cancel.
    """
    length = round(window_s * sample_rate)
    window = torch.hann_window(length)
    channels = channels_of(waveform)
    power_T = torch.zeros(frames)
    for x_N in channels:
        blocks = windows(x_N, sample_rate, frame_rate, frames, length)
        power_T += torch.cat([(x_TN.square() @ window) / window.sum() for x_TN in blocks]) / len(channels)
    return 10 * power_T.clamp(min=10 ** (FLOOR_DB / 10)).log10()


def centroid_hz(waveform: Tensor, sample_rate: float, frame_rate: float, frames: int, window_s: float = 0.04) -> Tensor:
    """Spectral centroid [frames] in Hz: the mean frequency, weighted by magnitude (summed over channels); NaN where it
    is silent."""
    length = round(window_s * sample_rate)
    window = torch.hann_window(length)
    frequency = torch.fft.rfftfreq(length, 1 / sample_rate)
    channels = channels_of(waveform)
    moment_T, sum_T, power_T = torch.zeros(3, frames)
    for x_N in channels:
        first = 0
        for x_TN in windows(x_N, sample_rate, frame_rate, frames, length):
            magnitude_TF = torch.fft.rfft(x_TN * window).abs()
            rows = slice(first, first + len(x_TN))
            moment_T[rows] += magnitude_TF @ frequency
            sum_T[rows] += magnitude_TF.sum(1)
            power_T[rows] += (x_TN.square() @ window) / window.sum() / len(channels)
            first += len(x_TN)
    silent_T = power_T < 10 ** (SILENCE_DB / 10)
    return (moment_T / sum_T.clamp(min=1e-12)).masked_fill(silent_T, torch.nan)


@torch.no_grad()
def crepe(
    waveform: Tensor, sample_rate: float, frame_rate: float, frames: int, low: float, high: float, size: str = "tiny"
) -> tuple[Tensor, Tensor]:
    """(pitch in MIDI notes [frames], periodicity 0 to 1 [frames]) by CREPE, between two notes.

    Each frame is decoded by itself: the mean of the bins around the best one, weighted by their probability.
    (torchcrepe's own decoders add random noise of up to 20 cents.) `size` is `tiny` or `full`.

    Raises:
        MissingExtraError: torchcrepe is not installed.
    """
    torchcrepe = require("torchcrepe", "eval")
    audio_N = resampled(mono(waveform), sample_rate, CREPE_RATE)
    cents = CREPE_LOWEST_CENTS + CREPE_BIN_CENTS * torch.arange(360)
    midi = 69 + (cents - 1200 * np.log2(440 / 10)) / 100
    allowed = (midi >= low) & (midi <= high)
    pitches, periodicities = [], []
    for x_TN in windows(audio_N, CREPE_RATE, frame_rate, frames, CREPE_WINDOW):
        x_TN = x_TN - x_TN.mean(1, keepdim=True)
        probability = torchcrepe.infer(x_TN / x_TN.std(1, keepdim=True).clamp(min=1e-10), size) * allowed
        periodicity, best = probability.max(1)
        near = (torch.arange(360) - best[:, None]).abs() <= 4
        pitches.append((probability * near * midi).sum(1) / (probability * near).sum(1).clamp(min=1e-12))
        periodicities.append(periodicity)
    return torch.cat(pitches).float(), torch.cat(periodicities).float()


def pitch_midi(
    waveform: Tensor,
    sample_rate: float,
    frame_rate: float,
    frames: int,
    min_periodicity: float = 0.5,
    fmin: float = 50.0,
    fmax: float = 2000.0,
    size: str = "tiny",
) -> Tensor:
    """Pitch [frames] in MIDI notes (69 is 440 Hz) by CREPE, NaN where unvoiced or silent; `fmin` and `fmax` in Hz.

    Raises:
        MissingExtraError: torchcrepe is not installed.
    """
    pitch_T, periodicity_T = crepe(waveform, sample_rate, frame_rate, frames, hz_to_midi(fmin), hz_to_midi(fmax), size)
    silent_T = loudness_db(waveform, sample_rate, frame_rate, frames, CREPE_WINDOW / CREPE_RATE) < SILENCE_DB
    return pitch_T.masked_fill(silent_T | (periodicity_T < min_periodicity), torch.nan)


def hz_to_midi(frequency: float) -> float:
    return 69 + 12 * float(np.log2(frequency / 440))
