from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from training.codec_losses import SpectralDistance, band_error_ratio, log_angle, log_error_ratio, mel_filters

pytest.importorskip("librosa", reason="mel filters are librosa's (extra eval)")

RATE = 24_000


def tone(hz: float, count: int = 1) -> Tensor:
    return 0.1 * torch.sin(2 * torch.pi * hz * torch.arange(RATE // 2) / RATE).expand(count, -1)


def test_spectral_distance_is_zero_for_equals_and_does_not_see_the_sign() -> None:
    distance, x_BN = SpectralDistance(RATE), 0.1 * torch.randn(2, RATE // 2)
    assert torch.equal(distance(x_BN, x_BN), torch.zeros(2))
    assert distance(x_BN, -x_BN).max() < 1e-4  # rounding of the transforms
    assert distance(x_BN, 2 * x_BN).min() > 0.5


def test_silence_is_not_the_way_out_of_the_angle_loss() -> None:
    x_BN, y_BN = torch.randn(1, 4000), torch.randn(1, 4000)
    assert torch.allclose(log_angle(x_BN, y_BN), log_angle(x_BN, 0.01 * y_BN), atol=1e-4)  # the cosine's guard
    assert log_error_ratio(x_BN, 0.01 * y_BN) < log_error_ratio(x_BN, y_BN)


def test_error_ratio_is_the_sdr_in_nepers() -> None:
    x_BN, noise_BN = torch.randn(1, 50_000), torch.randn(1, 50_000)
    noise_BN *= x_BN.norm() / noise_BN.norm() / 10**0.5
    # 10 dB; the guards against silence and infinity shift it by about 1 %
    assert log_error_ratio(x_BN, x_BN + noise_BN).item() == pytest.approx(-2.3026, abs=0.03)


def test_band_errors_count_alike_however_quiet_their_band_is() -> None:
    low_BN, high_BN = 10 * tone(200.0), tone(3000.0)
    missing = band_error_ratio(low_BN + high_BN, low_BN, RATE)
    # one of four bands is right (0.001 by the guard against infinity), one lost (1), and two are silent (1 as well)
    assert missing.item() == pytest.approx(0.25 * math.log(1e-3), abs=0.01)
    assert log_error_ratio(low_BN + high_BN, low_BN).item() == pytest.approx(math.log(0.01), abs=0.2)


def test_mel_filters_pass_flat_spectra_as_they_are() -> None:
    filters_FM = mel_filters(RATE, 2048, 120)
    assert filters_FM.shape == (1025, 120)
    assert filters_FM.min() >= 0
    flat_M = torch.ones(1025) @ filters_FM
    assert torch.allclose(flat_M, torch.ones(120), atol=1e-5)  # sums of float32
