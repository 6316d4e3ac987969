"""What an edit left as it was, in numbers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from steer.editing.kept import Kept, above_band_db, intelligibility, what_was_kept
from tests.steer.editing.frames import Frames
from tests.tiny_codec import tones


def noise(count: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(1, count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_energy_above_the_band() -> None:
    x_CN = noise(48_000)
    spectrum = torch.fft.rfft(x_CN)
    spectrum[:, 12_000:] *= 2
    assert above_band_db(x_CN, torch.fft.irfft(spectrum, 48_000), 48_000, 24_000) == pytest.approx(6.0, abs=0.4)
    assert above_band_db(x_CN, x_CN, 48_000, 24_000) == 0
    # there is nothing above, or nothing is left
    assert above_band_db(x_CN, 2 * x_CN, 24_000, 24_000) is None
    tone_CN = torch.sin(torch.arange(48_000, dtype=torch.float64) / 50)[None]
    assert above_band_db(torch.zeros_like(x_CN), x_CN, 48_000, 24_000) is None
    assert above_band_db(0.001 * tone_CN, 0.001 * tone_CN, 48_000, 24_000) in (None, pytest.approx(0.0))


def test_intelligibility() -> None:
    pytest.importorskip("pystoi", reason="extra eval")
    x_CN = torch.from_numpy(tones(2.0).T)
    assert intelligibility(x_CN, 3 * x_CN, 24_000) == pytest.approx(1.0, abs=1e-3)
    worse = intelligibility(x_CN, x_CN + noise(48_000), 24_000)
    assert worse is not None and worse < 0.9
    assert intelligibility(x_CN[:, :9_000], x_CN[:, :9_000], 24_000) is None  # too short
    assert intelligibility(0 * x_CN, x_CN, 24_000) is None


def test_as_a_dict() -> None:
    kept = what_was_kept(noise(1000), noise(1000), 24_000, Frames())
    assert kept == Kept()
    assert kept.to_dict(outside_unchanged=True) == {"stoi": None, "above_band_db": None, "outside_unchanged": True}
