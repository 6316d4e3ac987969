"""Chunks of a file that start on the codec's grid of frames."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from steer.editing.chunks import LONGEST_GRID_S, file_plan, fitted, grid_samples
from tests.steer.editing.frames import Frames

CODECS = [(24_000, 320), (24_000, 60), (16_000, 320), (44_100, 512), (48_000, 1024)]
RATES = [8_000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000, 96_000]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("rate", RATES)
def test_the_grid_is_whole_frames_where_there_is_one(codec: tuple[int, int], rate: int) -> None:
    codec_rate, hop = codec
    grid = grid_samples(Frames(codec_rate, hop), rate)
    frames = Fraction(grid, rate) * Fraction(codec_rate, hop)
    if frames.denominator == 1:
        # the least such grid
        assert frames < LONGEST_GRID_S * codec_rate / hop + 1
        assert all((Fraction(n * hop, codec_rate) * rate).denominator > 1 for n in range(1, frames.numerator))
    else:
        assert abs(grid / rate - hop / codec_rate) <= 0.5 / rate


def test_known_grids() -> None:
    codec = Frames(24_000, 320)
    assert {rate: grid_samples(codec, rate) for rate in (24_000, 44_100, 48_000, 8_000, 11_025)} == {
        24_000: 320,
        44_100: 588,
        48_000: 640,
        8_000: 320,
        11_025: 147,
    }


@pytest.mark.parametrize("rate", [44_101, 8_017, 47_999, 700_001])
def test_odd_rates(rate: int) -> None:
    # a second is 75 frames
    assert grid_samples(Frames(24_000, 320), rate) == rate
    # 512 samples at 44.1 kHz meet whole samples after minutes: at the nearest sample
    assert grid_samples(Frames(44_100, 512), rate) == round(512 * rate / 44_100)


def test_a_codec_that_cuts_chunks_itself_is_cut_where_it_cuts() -> None:
    codec = Frames(24_000, 320)
    codec.chunk_s = 1.0  # type: ignore[attr-defined]
    assert grid_samples(codec, 44_100) == 44_100


@pytest.mark.parametrize("rate", [*RATES, 44_101])
@pytest.mark.parametrize("chunk_s", [0.01, 1.0, 20.0])
def test_plans(rate: int, chunk_s: float) -> None:
    codec = Frames(24_000, 320)
    plan, grid = file_plan(codec, rate, chunk_s), grid_samples(codec, rate)
    assert plan.core % grid == 0 and plan.before % grid == 0 and plan.core > 0
    assert plan.before == plan.after >= codec.context_s * rate
    assert abs(plan.core - chunk_s * rate) <= grid
    assert 0 < plan.fade <= min(plan.core, plan.after)


def test_resampling() -> None:
    x_CN = torch.from_numpy(np.sin(np.arange(4410) / 10)[None])
    same = fitted(x_CN, 44_100, 44_100)
    assert same.dtype == torch.float32 and torch.equal(same, x_CN.float())
    assert fitted(x_CN, 44_100, 24_000, 2400).shape == (1, 2400)
    assert fitted(x_CN, 44_100, 24_000, 3000).shape == (1, 3000)
    assert not fitted(x_CN, 44_100, 24_000, 3000)[:, 2500:].any()
    there_and_back = fitted(fitted(x_CN, 44_100, 48_000), 48_000, 44_100, 4410)
    assert (there_and_back - x_CN)[:, 500:-500].abs().max() < 1e-4
