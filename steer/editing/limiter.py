"""A true-peak limiter: what an edit makes louder than a file can hold is turned down for some milliseconds."""

from __future__ import annotations

import math

import numpy as np
import soxr
import torch
from torch import Tensor

CEILING = 10 ** (-0.1 / 20)
"""-0.1 dB of full scale, of the true peak."""
OVERSAMPLING = 4
"""As ITU-R BS.1770-5, annex 2, for 48 kHz."""
ATTACK_S = 0.005


def true_peaks(x_CN: Tensor) -> Tensor:
    """Peak amplitude around each sample [N], over all channels and between the samples too."""
    over = soxr.resample(x_CN.double().T.numpy(), 1, OVERSAMPLING)
    peaks = np.abs(over).max(axis=1, initial=0.0)
    count = x_CN.shape[1]
    peaks = np.pad(peaks, (0, max(0, OVERSAMPLING * count - len(peaks))))[: OVERSAMPLING * count]
    between_N = torch.from_numpy(peaks).view(count, OVERSAMPLING).amax(1)
    return torch.maximum(between_N, x_CN.abs().amax(0))


def limited(x_CN: Tensor, sample_rate: int, ceiling: float = CEILING) -> tuple[Tensor, float]:
    """(the sound [C, N] with no true peak above the ceiling, the most that it was turned down in dB).

    One gain for all channels, so that the image stays: the least that is needed within 5 ms, smoothed over as long.
    A sound that has no such peak comes back as it is.
    """
    if not x_CN.numel() or float(x_CN.abs().max()) < 0.5 * ceiling:
        return x_CN, 0.0
    peak_N = true_peaks(x_CN)
    if float(peak_N.max()) <= ceiling:
        return x_CN, 0.0
    reach = max(1, round(ATTACK_S * sample_rate))
    needed = (ceiling / peak_N.clamp(min=ceiling))[None, None]
    least = -torch.nn.functional.max_pool1d(-needed, 2 * reach + 1, 1, reach)
    window = torch.hann_window(2 * reach + 3, periodic=False, dtype=least.dtype)[1:-1]
    # what is taken away is smoothed, so that the gain is exactly 1 where nothing is
    taken = torch.nn.functional.pad(1 - least, (reach, reach), mode="replicate")
    gain_N = 1 - torch.nn.functional.conv1d(taken, (window / window.sum())[None, None])[0, 0]
    return x_CN * gain_N.to(x_CN.dtype), -20 * math.log10(float(gain_N.min()))
