from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from hooks.networks.pitch_net import (
    BINS,
    HIGH,
    LOW,
    PER_SEMITONE,
    PITCH_LOW,
    RANGE,
    PitchNet,
    log_frequency_map,
    read_pitch,
)
from hooks.networks.source_filter import SourceFilter

RATE, HOP, FRAMES = 24_000, 320, 30


def tone(midi: float) -> Tensor:
    """0.4 s of 12 harmonics."""
    time_N = torch.arange(FRAMES * HOP) / RATE
    phase = 2 * math.pi * 440 * 2 ** ((midi - 69) / 12) * time_N
    return 0.1 * torch.stack([(k * phase).sin() / k for k in range(1, 13)]).sum(0)[None]


def logits_of(peaks: list[int], heights: list[float]) -> Tensor:
    """Logits [1, BINS, 1] whose probabilities at some bins are these."""
    p_BPT = torch.full((1, BINS, 1), 1e-12)
    p_BPT[0, peaks, 0] = torch.tensor(heights)
    return p_BPT.log()


def test_the_log_axis_weighs_every_bin_alike() -> None:
    weights = log_frequency_map(RATE)
    sums = weights.sum(0)
    # those above half the sampling rate have nothing to read
    below = 440 * 2 ** ((torch.arange(LOW * PER_SEMITONE, HIGH * PER_SEMITONE + 1) / PER_SEMITONE - 69) / 12) < RATE / 2
    torch.testing.assert_close(sums[below], torch.ones(int(below.sum())), atol=1e-5, rtol=0)
    assert weights.min() >= 0


def test_a_spectrum_moved_along_the_axis_moves_the_logits_and_no_more() -> None:
    """Exactly so for a network without biases, which make something of the edges, and a spectrum far from them."""
    net = PitchNet(RATE, HOP)
    for part in (net.c1, net.c2, net.c3):
        assert part.bias is not None
        nn.init.zeros_(part.bias)
    spectrum = torch.zeros(1, 2, (HIGH - LOW) * PER_SEMITONE + 1, 7)
    spectrum[:, :, 100:200] = torch.rand(1, 2, 100, 7)
    found = []
    for moved in (0, PER_SEMITONE, 12 * PER_SEMITONE):
        net.spectrum = partial(lambda rolled, *_: rolled, spectrum.roll(moved, 2))  # type: ignore[method-assign]
        found.append(net(torch.zeros(1, 7 * HOP), 7))
    assert found[0].shape == (1, BINS, 7)
    for logits_BPT, moved in zip(found[1:], (PER_SEMITONE, 12 * PER_SEMITONE), strict=True):
        # another order of sums in float32
        torch.testing.assert_close(logits_BPT[:, moved:], found[0][:, :-moved], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("midi", [45.0, 57.0, 64.3])
@torch.no_grad()
def test_a_tone_a_semitone_higher_has_logits_three_bins_higher(source_filter: SourceFilter, midi: float) -> None:
    net = source_filter.encoder.pitch
    low, high = (net(tone(m), FRAMES) for m in (midi, midi + 1))
    inner = slice(6, -6)  # frames whose windows are filled
    difference = (high[:, PER_SEMITONE:, inner] - low[:, :-PER_SEMITONE, inner]).square().mean().sqrt()
    # the FFT's bins are not spaced as the log axis is, and one end of the axis gains a semitone where the other loses
    # one: 4 to 12 % of how much logits differ among themselves
    assert difference < 0.15 * low[..., inner].std()
    notes = [read_pitch(logits_BPT)[0][0, FRAMES // 2].item() for logits_BPT in (low, high)]
    # as far as an estimator that was trained for some minutes is good
    assert notes[0] == pytest.approx(midi, abs=0.1)
    assert notes[1] - notes[0] == pytest.approx(1, abs=0.05)


def test_the_level_makes_no_difference() -> None:
    net = PitchNet(RATE, HOP)
    x_BN = tone(60.0) + 0.3 * torch.randn(1, FRAMES * HOP)
    plain, quiet = net.spectrum(x_BN, FRAMES), net.spectrum(0.5 * x_BN, FRAMES)
    below = (HIGH - LOW - 2) * PER_SEMITONE  # above half the sampling rate there is the floor only
    # magnitudes are some 1e-3, of which the floor of 1e-5 is 1 %, on a scale of a quarter of a neper
    assert (quiet - plain)[:, :, :below].abs().mean() < 0.0025
    assert plain.max().item() == pytest.approx(1.0)  # a frame's top
    assert plain.min() >= 1 - RANGE / 4


class TestReadPitch:
    def test_one_bin_is_its_note(self) -> None:
        for index in (0, 99, BINS - 1):
            midi_BT, top_BT = read_pitch(logits_of([index], [1.0]))
            assert midi_BT.item() == pytest.approx(PITCH_LOW + index / PER_SEMITONE, abs=1e-4)
            assert top_BT.item() == pytest.approx(1.0, abs=1e-4)

    def test_between_bins_it_is_the_weighted_mean(self) -> None:
        midi_BT, top_BT = read_pitch(logits_of([99, 100], [0.75, 0.25]))
        assert midi_BT.item() == pytest.approx(PITCH_LOW + (99 + 0.25) / PER_SEMITONE, abs=1e-4)
        assert top_BT.item() == pytest.approx(0.75, abs=1e-4)

    def test_what_is_more_than_a_semitone_off_has_no_part(self) -> None:
        midi_BT, _ = read_pitch(logits_of([99, 99 + PER_SEMITONE, 99 + PER_SEMITONE + 1, 135], [0.4, 0.1, 0.2, 0.3]))
        # of the bins within a semitone: 0.4 at bin 99, 0.1 three bins above
        assert midi_BT.item() == pytest.approx(PITCH_LOW + (99 + 0.2 * PER_SEMITONE) / PER_SEMITONE, abs=1e-4)

    def test_half_precision_logits(self) -> None:
        midi_BT, _ = read_pitch(logits_of([99, 100], [0.75, 0.25]).clamp(min=-20).half())
        assert midi_BT.dtype == torch.float32
        assert midi_BT.item() == pytest.approx(PITCH_LOW + (99 + 0.25) / PER_SEMITONE, abs=1e-3)
