"""The limiter: no true peak above the ceiling, one gain for all channels, and nothing where nothing is needed."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from steer.editing.limiter import ATTACK_S, CEILING, limited, true_peaks

RATES = [8_000, 44_100, 48_000]


def noise(count: int, channels: int = 1, level: float = 0.5) -> Tensor:
    return level * torch.randn(channels, count, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def peak_between(x_CN: Tensor, factor: int = 16) -> float:
    """The true peak, by zeros behind the spectrum of the whole sound."""
    spectrum = np.fft.rfft(x_CN.numpy(), axis=1)
    return float(np.abs(np.fft.irfft(spectrum, factor * x_CN.shape[1], axis=1) * factor).max())


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("level", [0.3, 1.0, 10.0])
def test_no_true_peak_is_above_full_scale(rate: int, level: float) -> None:
    spectrum_CF = torch.fft.rfft(noise(rate, 2, 3 * level))
    spectrum_CF[:, rate // 5 :] = 0  # near half the rate, four samples for one miss more of a peak (BS.1770, annex 2)
    fade_N = torch.from_numpy(np.hanning(rate))  # a sound that starts and ends in silence
    y_CN, turned_down_db = limited(torch.fft.irfft(spectrum_CF, rate) * fade_N, rate)
    assert y_CN.abs().max() < CEILING * (1 + 1e-9) and turned_down_db > 0
    assert peak_between(y_CN) < 1.0


def test_peaks_between_samples_are_seen() -> None:
    # a quarter of the rate, sampled 45 degrees from its peaks: they are 3 dB above all samples
    n = torch.arange(4800, dtype=torch.float64)
    x_CN = 0.9 * torch.sin(math.pi / 2 * n + math.pi / 4)[None] * torch.from_numpy(np.hanning(4800))
    assert x_CN.abs().max() < 0.7
    assert true_peaks(x_CN).max() == pytest.approx(0.9, abs=0.01)
    assert limited(x_CN, 48_000)[0] is x_CN
    y_CN, turned_down_db = limited(1.5 * x_CN, 48_000)
    assert turned_down_db == pytest.approx(20 * math.log10(1.35 / CEILING), abs=0.2)
    assert peak_between(y_CN) < 1.0


@pytest.mark.parametrize("level", [0.0, 0.01, 0.2])
def test_what_needs_nothing_comes_back_as_it_is(level: float) -> None:
    x_CN = noise(10_000, 2, level).clamp(-0.9 * CEILING, 0.9 * CEILING)
    y_CN, turned_down_db = limited(x_CN, 44_100)
    assert turned_down_db == 0 and torch.equal(y_CN, x_CN)


def test_a_peak_turns_down_its_neighbourhood_and_nothing_else() -> None:
    x_CN = 0.3 * torch.sin(torch.arange(44_100, dtype=torch.float64) / 20)[None]
    x_CN[0, 20_000] = 2.0
    y_CN, turned_down_db = limited(x_CN, 44_100)
    changed = (y_CN != x_CN)[0].nonzero()[:, 0]
    reach = 2 * ATTACK_S * 44_100 + 50
    assert 20_000 - reach < changed.min() and changed.max() < 20_000 + reach
    assert turned_down_db == pytest.approx(20 * math.log10(2.0 / CEILING), abs=0.3)
    gain = (y_CN / x_CN)[0, 19_000:21_000].nan_to_num(1.0).clamp(0, 1.0001)
    assert gain.diff().abs().max() < 0.02  # no click


def test_all_channels_get_the_same_gain() -> None:
    loud_N = noise(20_000)[0]
    x_CN = torch.stack([loud_N, 0.01 * loud_N, -0.5 * loud_N])
    y_CN, _ = limited(x_CN, 44_100)
    assert torch.allclose(y_CN[1], 0.01 * y_CN[0]) and torch.allclose(y_CN[2], -0.5 * y_CN[0])


@pytest.mark.parametrize("count", [0, 1, 2, 10, 300])
def test_short_sounds(count: int) -> None:
    x_CN = torch.full((2, count), 3.0, dtype=torch.float64)
    y_CN, _ = limited(x_CN, 44_100)
    assert y_CN.shape == x_CN.shape and (not count or y_CN.abs().max() < CEILING * (1 + 1e-9))
