"""Spectrograms on a mel axis, and how all pictures draw them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

ROWS = 160
FLOOR_DB = 80.0
"""What lies this far below the loudest point is black."""
SILENCE_DB = -120.0
HERTZ = {100: "100", 300: "300", 1000: "1 k", 3000: "3 k", 10_000: "10 k", 30_000: "30 k"}


def mel(hertz: float) -> float:
    return 2595 * math.log10(1 + hertz / 700)


def power_of(mono_N: Tensor, sample_rate: int) -> tuple[Tensor, int]:
    """Power [F, T] in windows of about 46 ms, and the hop in samples."""
    n_fft = 2 ** round(math.log2(0.046 * sample_rate))
    hop = n_fft // 4
    padded = torch.nn.functional.pad(mono_N, (n_fft // 2, n_fft // 2))
    spectrum = torch.stft(padded, n_fft, hop, window=torch.hann_window(n_fft), center=False, return_complex=True)
    return spectrum.abs().square() / n_fft, hop


def spectrogram_db(mono_N: Tensor, sample_rate: int) -> Tensor:
    """Power in dB on a mel axis, [ROWS, T]."""
    power_FT, _ = power_of(mono_N, sample_rate)
    hertz = 700 * (10 ** (torch.linspace(0, mel(sample_rate / 2), ROWS + 1) / 2595) - 1)
    bins = (hertz / (sample_rate / 2) * (len(power_FT) - 1)).round().long()
    bands = [
        power_FT[low : max(low + 1, high)].mean(0)
        for low, high in zip(bins[:-1].tolist(), bins[1:].tolist(), strict=True)
    ]
    return 10 * torch.log10(torch.stack(bands).clamp(min=1e-12))


def draw_spectrogram(
    axes: Any, spectrum_FT: Tensor, sample_rate: int, start_s: float, end_s: float, top_db: float | None = None
) -> Any:
    """Draw what `spectrogram_db` gives between two times on matplotlib axes, with ticks in Hz; gives the image.

    `top_db` is the brightest level, by default that of the loudest point; silence is black.
    """
    top_db = max(float(spectrum_FT.max()), SILENCE_DB + FLOOR_DB) if top_db is None else top_db
    image = axes.imshow(
        spectrum_FT.numpy(),
        origin="lower",
        aspect="auto",
        extent=(start_s, end_s, 0, mel(sample_rate / 2)),
        vmin=top_db - FLOOR_DB,
        vmax=top_db,
        cmap="magma",
        interpolation="nearest",
    )
    ticks = {mel(hertz): name for hertz, name in HERTZ.items() if hertz < sample_rate / 2}
    axes.set_yticks(list(ticks), list(ticks.values()))
    return image
