from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hooks.networks.harmonics import (
    JUMP,
    NOISE_BLOCK,
    TOP,
    Phase,
    at_samples,
    filtered,
    framed,
    harmonic_source,
    minimum_phase,
    noise_at,
    running_phase,
)

RATE, HOP, N_FFT = 24_000, 320, 1024


def steady(hz: float, count: int = RATE) -> tuple[Tensor, Tensor]:
    """(cycles, frequency) [1, count] of a steady tone."""
    f0_BN = torch.full((1, count), hz, dtype=torch.float64)
    return f0_BN.cumsum(1) / RATE, f0_BN


def smooth_log(frames: int) -> Tensor:
    """Log magnitudes [1, frames, F] that change by some nepers over the spectrum, smoothly."""
    place = torch.linspace(0, math.pi, N_FFT // 2 + 1)
    curves = torch.stack([(k * place).cos() for k in range(6)])
    return torch.randn(1, frames, 6, generator=torch.Generator().manual_seed(0)) @ curves


@pytest.mark.parametrize("hz", [55.0, 110.3, 440.0, 1234.5, 3000.0])
def test_the_source_is_the_sum_of_its_cosines(hz: float) -> None:
    cycles_BN, f0_BN = steady(hz)
    count = int(TOP * RATE / hz)
    weights = [1.0] * count + [TOP * RATE / hz - count]
    cosines = [w * (2 * math.pi * k * cycles_BN).cos() for k, w in enumerate(weights, 1)]
    expected = torch.stack(cosines).sum(0) * math.sqrt(2 * hz / (RATE / 2))
    # within |sin| < 1e-4 of a pulse its top value stands for it: 1 part in 10^4 of the top
    top = (count + 1) * math.sqrt(2 * hz / (RATE / 2))
    source_BN = harmonic_source(cycles_BN, f0_BN, RATE)
    assert source_BN.dtype == torch.float32
    torch.testing.assert_close(source_BN.double(), expected, atol=1e-4 * top, rtol=0)


def test_the_level_does_not_depend_on_the_pitch() -> None:
    for hz in range(41, 900, 13):  # whole periods in a second
        power = harmonic_source(*steady(hz), RATE).square().mean().item()
        # equal power per hertz up to 11.6 of 12 kHz. The last cosine, faded in, has weight^2 and not weight of the
        # others' power: at most 1/4 of one of them too little
        assert power == pytest.approx(2 * TOP, rel=0.25 * hz / (TOP * RATE) + 1e-3)


def test_a_glide_adds_harmonics_without_a_click() -> None:
    midi_BT = torch.linspace(60, 64, 75)[None]
    cycles_BN, f0_BN = running_phase(midi_BT, HOP, RATE)
    count_BN = (TOP * RATE / f0_BN).floor()
    assert count_BN.unique().numel() > 5
    source_BN = harmonic_source(cycles_BN, f0_BN, RATE)
    at = (count_BN[0].diff() != 0).nonzero()[:, 0]
    for n in at.tolist():
        k = int(count_BN[0, n])
        kernel = torch.stack([(2 * math.pi * i * cycles_BN[0, n : n + 2]).cos() for i in range(1, k + 1)]).sum(0)
        expected = kernel * (2 * f0_BN[0, n : n + 2] / (RATE / 2)).sqrt()
        # where the count falls, the faded cosine has come to 0 before and begins at 1 behind, but for a weight of 0.01
        torch.testing.assert_close(source_BN[0, n : n + 2].double(), expected, atol=0.01, rtol=0)


def test_phase_is_the_integral_of_the_pitch() -> None:
    cycles_BN, f0_BN = running_phase(torch.full((2, 75), 69.0), HOP, RATE)
    assert f0_BN.shape == cycles_BN.shape == (2, 75 * HOP)
    assert torch.equal(f0_BN, torch.full_like(f0_BN, 440.0))
    # rounding of 24,000 sums in float64
    torch.testing.assert_close(cycles_BN[:, -1], torch.full((2,), 440.0).double(), atol=1e-8, rtol=0)


def test_pitches_out_of_range_are_held_at_its_ends() -> None:
    _, f0_BN = running_phase(torch.tensor([[-500.0, 500.0]]), HOP, RATE)
    assert f0_BN[0, 0].item() == pytest.approx(440 * 2 ** ((15 - 69) / 12))
    assert f0_BN[0, -1].item() == pytest.approx(440 * 2 ** ((118 - 69) / 12))


class TestAtSamples:
    def test_values_stand_at_the_centres_of_frames_with_straight_lines_between(self) -> None:
        values = at_samples(torch.tensor([[0.0, 1.0, 3.0]]).double(), 4, jump=2.0)
        # centres lie between samples 1 and 2, 5 and 6, 9 and 10
        expected = [0, 0, 0.125, 0.375, 0.625, 0.875, 1.25, 1.75, 2.25, 2.75, 3, 3]
        assert values.tolist() == [expected]

    def test_larger_steps_stay_steps_half_way(self) -> None:
        values = at_samples(torch.tensor([[0.0, 5.0], [5.0, 0.0]]), 4, jump=2.0)
        assert values.tolist() == [[0, 0, 0, 0, 5, 5, 5, 5], [5, 5, 5, 5, 0, 0, 0, 0]]
        assert at_samples(torch.tensor([[0.0, JUMP]]), 4, jump=JUMP).unique().numel() > 2

    def test_one_frame(self) -> None:
        assert at_samples(torch.tensor([[7.0]]), 3, jump=2.0).tolist() == [[7, 7, 7]]


class TestNoise:
    @pytest.mark.parametrize("start", [0, 1, 777, NOISE_BLOCK - 1, NOISE_BLOCK, 3 * NOISE_BLOCK + 5])
    def test_it_is_the_same_wherever_a_chunk_begins(self, start: int) -> None:
        whole = noise_at(0, 5 * NOISE_BLOCK, seed=3)
        for count in (1, 100, NOISE_BLOCK + 1):
            assert torch.equal(noise_at(start, count, seed=3), whole[start : start + count])

    def test_it_is_white_and_has_the_callers_generator_left_alone(self) -> None:
        state = torch.get_rng_state()
        noise = noise_at(0, 4 * NOISE_BLOCK, seed=0)
        assert torch.equal(torch.get_rng_state(), state)
        deviation = len(noise) ** -0.5
        assert noise.square().mean().item() == pytest.approx(1.0, abs=5 * 1.5 * deviation)
        for lag in (1, 10, NOISE_BLOCK):
            assert abs((noise[lag:] * noise[:-lag]).mean()) < 5 * deviation * 2
        assert not torch.equal(noise_at(0, 100, seed=0), noise_at(0, 100, seed=1))


def test_frames_lie_around_their_centres() -> None:
    ramp = torch.arange(1.0, 13.0)[None]
    assert framed(ramp, 8, 4, 3)[0].tolist() == [
        [0, 0, 1, 2, 3, 4, 5, 6],
        [3, 4, 5, 6, 7, 8, 9, 10],
        [7, 8, 9, 10, 11, 12, 0, 0],
    ]


class TestMinimumPhase:
    def test_it_has_the_magnitude_that_was_asked_for(self) -> None:
        log_BTF = smooth_log(4)
        # float32 transforms there and back
        torch.testing.assert_close(minimum_phase(log_BTF, N_FFT).abs().log(), log_BTF, atol=1e-4, rtol=0)

    def test_it_is_causal(self) -> None:
        response_BTN = torch.fft.irfft(minimum_phase(smooth_log(4), N_FFT), N_FFT)
        late = response_BTN[..., N_FFT // 2 :].square().sum() / response_BTN.square().sum()
        assert late < 1e-10  # in a circle of 1024 samples the second half is what lies before time 0
        # of all with this magnitude it has the most energy at the start: more than the one of phase zero, delayed
        other_BTN = torch.fft.irfft(smooth_log(4).exp() + 0j, N_FFT).roll(N_FFT // 4, 2)
        sums, others = response_BTN.square().cumsum(2), other_BTN.square().cumsum(2)
        assert (sums >= others - 1e-4 * others[..., -1:]).all()

    def test_a_flat_magnitude_is_a_pulse(self) -> None:
        response_BTN = torch.fft.irfft(minimum_phase(torch.full((1, 1, N_FFT // 2 + 1), math.log(2.0)), N_FFT), N_FFT)
        expected = torch.zeros(1, 1, N_FFT)
        expected[..., 0] = 2
        torch.testing.assert_close(response_BTN, expected, atol=1e-5, rtol=0)


class TestFiltered:
    window = torch.hann_window(2 * HOP)

    @pytest.mark.parametrize("early", [0, 256])
    def test_a_unit_response_gives_the_source_back(self, early: int) -> None:
        source_BN = torch.randn(2, 10 * HOP)
        unit = torch.ones(2, 10, N_FFT // 2 + 1, dtype=torch.complex64)
        output_BN = filtered(source_BN, unit, self.window, HOP, N_FFT, early)
        assert output_BN.shape == source_BN.shape
        # windows overlap to 1 but for the half hop at each end, where one of two is missing
        inner = slice(HOP // 2, -HOP // 2)
        torch.testing.assert_close(output_BN[:, inner], source_BN[:, inner], atol=1e-5, rtol=0)

    def test_a_steady_response_is_one_convolution(self) -> None:
        impulse = torch.randn(100) * torch.linspace(1, 0, 100)
        source_BN = torch.randn(1, 10 * HOP)
        source_BN[:, : HOP // 2] = source_BN[:, -HOP // 2 :] = 0  # where the windows do not add up to 1
        response = torch.fft.rfft(impulse, N_FFT).expand(1, 10, -1)
        output_BN = filtered(source_BN, response, self.window, HOP, N_FFT)
        size = 10 * HOP + 100
        expected = torch.fft.irfft(torch.fft.rfft(source_BN, size) * torch.fft.rfft(impulse, size), size)[:, : 10 * HOP]
        torch.testing.assert_close(output_BN, expected, atol=1e-4, rtol=0)  # sums of 100 products in float32

    def test_what_comes_early_is_kept_where_it_is_allowed_for(self) -> None:
        source_BN = torch.zeros(1, 10 * HOP)
        source_BN[0, 5 * HOP] = 1
        ahead = torch.zeros(N_FFT)
        ahead[-200] = 1  # 200 samples before its time
        response = torch.fft.rfft(ahead).expand(1, 10, -1)
        output_BN = filtered(source_BN, response, self.window, HOP, N_FFT, early=256)
        assert output_BN[0].argmax() == 5 * HOP - 200
        assert output_BN[0, 5 * HOP - 200].item() == pytest.approx(1, abs=1e-5)


class TestPhase:
    phase = Phase(100, torch.tensor([[5.0, 5.5, 6.0], [1.0, 1.25, 1.5]]).double())

    def test_the_offset_makes_phases_agree(self) -> None:
        offset_B = self.phase.offset_at(101, torch.tensor([0.25, 0.25]).double())
        assert offset_B is not None
        assert offset_B.tolist() == [5.25, 1.0]

    @pytest.mark.parametrize(("sample", "rows"), [(99, 2), (103, 2), (101, 1)])
    def test_outside_it_is_not_known(self, sample: int, rows: int) -> None:
        assert self.phase.offset_at(sample, torch.zeros(rows).double()) is None
