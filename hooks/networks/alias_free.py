"""SnakeBeta at twice the sampling rate (BigVGAN, arXiv 2206.04658).

A periodic activation makes overtones, and those above half the rate would fold back as noise. So the signal is doubled
in rate, activated, low-passed and halved again. Names are BigVGAN's: its filters are buffers in the state dict. Written
here from the paper and from Kaiser's formulas for the window.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TAPS = 12


def halfband() -> Tensor:
    """[1, 1, 12] low-pass at half of the band, of gain 1 at 0 Hz: a sinc in a Kaiser window."""
    # Kaiser's own formulas: attenuation that 12 taps reach when the cut is 0.6 of the band wide, and the beta for it
    attenuation_db = 2.285 * (TAPS // 2 - 1) * math.pi * 1.2 + 7.95
    window = torch.kaiser_window(TAPS, periodic=False, beta=0.1102 * (attenuation_db - 8.7))
    taps = window * torch.sinc((torch.arange(TAPS) - (TAPS - 1) / 2) / 2)
    return (taps / taps.sum()).view(1, 1, TAPS)


class _LowPass(nn.Module):
    filter: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filter", halfband())

    def filters(self, width: int) -> Tensor:
        return self.filter.expand(width, 1, TAPS)


class Upsample(_LowPass):
    """T to 2T, with the ends held."""

    def forward(self, x_BCT: Tensor) -> Tensor:
        width, reach = x_BCT.shape[1], TAPS // 2 - 1
        held = F.pad(x_BCT, (reach, reach), mode="replicate")
        # every other sample that is filtered is a zero, hence the factor 2
        return 2 * F.conv_transpose1d(held, self.filters(width), stride=2, padding=3 * reach, groups=width)


class LowPassHalve(_LowPass):
    """2T to T, with the ends held."""

    def forward(self, x_BCT: Tensor) -> Tensor:
        width = x_BCT.shape[1]
        held = F.pad(x_BCT, (TAPS // 2 - 1, TAPS // 2), mode="replicate")
        return F.conv1d(held, self.filters(width), stride=2, groups=width)


class Downsample(nn.Module):
    """One more level of names, as in the published checkpoints."""

    def __init__(self) -> None:
        super().__init__()
        self.lowpass = LowPassHalve()

    def forward(self, x_BCT: Tensor) -> Tensor:
        return self.lowpass(x_BCT)


class SnakeBeta(nn.Module):
    """x + sin^2(a x) / b with a and b for each channel, held as logarithms."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(width))
        self.beta = nn.Parameter(torch.zeros(width))

    def forward(self, x_BCT: Tensor) -> Tensor:
        frequency_C1, inverse_size_C1 = self.alpha.exp()[:, None], self.beta.exp()[:, None]
        return x_BCT + (x_BCT * frequency_C1).sin().square() / (inverse_size_C1 + 1e-9)


class AliasFreeSnake(nn.Module):
    """[B, C, T] to [B, C, T]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.act = SnakeBeta(width)
        self.upsample = Upsample()
        self.downsample = Downsample()

    def forward(self, x_BCT: Tensor) -> Tensor:
        return self.downsample(self.act(self.upsample(x_BCT)))
