from __future__ import annotations

import pytest
import torch

from hooks.networks.alias_free import AliasFreeSnake, Downsample, SnakeBeta, Upsample, halfband


def test_the_filter_passes_the_lower_half_of_the_band_and_stops_the_upper() -> None:
    taps = halfband()
    assert taps.shape == (1, 1, 12)
    torch.testing.assert_close(taps, taps.flip(-1))
    gain = torch.fft.rfft(taps[0, 0].double(), 512).abs()  # 0 ... 256: 0 Hz to the highest frequency
    assert gain[0] == pytest.approx(1)
    assert gain[:40].min() > 0.99
    assert gain[128] == pytest.approx(0.5, abs=0.02)
    assert gain[220:].max() < 0.005


def test_a_slow_wave_is_doubled_in_rate_and_halved_back() -> None:
    time_T = torch.arange(200.0)
    wave_1CT = torch.stack([torch.sin(0.2 * time_T), torch.cos(0.1 * time_T)])[None]
    doubled_1CT = Upsample()(wave_1CT)
    assert doubled_1CT.shape == (1, 2, 400)
    # the filter is symmetric around the middle between two samples, so its delay is half a sample of the double rate
    between_T = (torch.arange(400.0) - 0.5) / 2
    expected_1CT = torch.stack([torch.sin(0.2 * between_T), torch.cos(0.1 * between_T)])[None]
    inner = slice(20, -20)  # the ends are held, which a wave does not
    torch.testing.assert_close(doubled_1CT[..., inner], expected_1CT[..., inner], atol=5e-3, rtol=0)
    torch.testing.assert_close(Downsample()(doubled_1CT)[..., inner], wave_1CT[..., inner], atol=5e-3, rtol=0)


def test_the_formula_of_the_activation() -> None:
    snake = SnakeBeta(3)
    x_BCT = torch.randn(2, 3, 5)
    torch.testing.assert_close(snake(x_BCT), x_BCT + x_BCT.sin() ** 2)
    with torch.no_grad():
        snake.alpha.copy_(torch.tensor([2.0, 3.0, 0.5]).log())
        snake.beta.copy_(torch.tensor([4.0, 0.1, 1.0]).log())
    expected_BT = x_BCT[:, 1] + (3.0 * x_BCT[:, 1]).sin() ** 2 / 0.1
    torch.testing.assert_close(snake(x_BCT)[:, 1], expected_BT)


def test_constants_stay_constant_up_to_the_ends() -> None:
    x_BCT = torch.tensor([0.5, -2.0])[None, :, None].expand(1, 2, 9)
    torch.testing.assert_close(AliasFreeSnake(2)(x_BCT), x_BCT + x_BCT.sin() ** 2)


@pytest.mark.parametrize("frames", [1, 2, 37])
def test_it_is_that_of_xcodec2_in_transformers(frames: int) -> None:
    theirs_module = pytest.importorskip("transformers.models.xcodec2.modeling_xcodec2", reason="extra encodec")
    ours = AliasFreeSnake(4)
    theirs = theirs_module.Xcodec2AntiAliasedActivation1d(theirs_module.Xcodec2SnakeBeta(4))
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_(0, 0.5)
    theirs.load_state_dict(ours.state_dict(), strict=False)
    torch.testing.assert_close(ours.upsample.filter, theirs.upsample.filter)
    torch.testing.assert_close(ours.downsample.lowpass.filter, theirs.downsample.filter)
    x_BCT = torch.randn(2, 4, frames)
    # float32 sums in another order
    torch.testing.assert_close(ours(x_BCT), theirs(x_BCT), atol=1e-5, rtol=1e-4)


def test_names_are_those_of_bigvgan() -> None:
    state = AliasFreeSnake(4).state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        "act.alpha": (4,),
        "act.beta": (4,),
        "upsample.filter": (1, 1, 12),
        "downsample.lowpass.filter": (1, 1, 12),
    }
