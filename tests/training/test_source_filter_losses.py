from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hooks.networks.pitch_net import BINS, PER_SEMITONE, PITCH_LOW
from hooks.networks.source_filter import MIDI_CENTRE, MIDI_STEP, SourceFilter, SourceFilterConfig
from training.source_filter_losses import (
    BandCorrelation,
    EnvelopeDistance,
    Loss,
    SpectralDistance,
    Weights,
    magnitudes,
    pitch_loss,
    tilt,
)

RATE, HOP, FRAMES = 24_000, 320, 64
SMALL = SourceFilterConfig(
    dimension=8, encoder_width=16, encoder_layers=2, decoder_width=16, decoder_layers=2, pitch_channels=2, bands=16
)
# the classes Spectral and Coarse and the function losses of the prototype's train.py, executed on the batch of
# `test_the_terms_are_the_prototypes` with its draw() replaced by that batch
PROTOTYPE_TERMS = {
    "total": 1.222867,
    "spectral": 0.419055,
    "level": 0.181973,
    "pitch": 1.29849,
    "voicing": 0.117731,
    "keep": 0.08778,
    "agree": 0.002302,
    "rough": 0.093211,
}


def tone(hz: float, harmonics: int = 1) -> Tensor:
    phase = 2 * math.pi * hz * torch.arange(FRAMES * HOP) / RATE
    return 0.1 * torch.stack([(k * phase).sin() / k for k in range(1, harmonics + 1)]).sum(0)[None]


@torch.no_grad()
def test_the_terms_are_the_prototypes(source_filter: SourceFilter, prototype: Path) -> None:
    count = FRAMES * HOP
    with np.load(prototype / "parity.npz") as arrays:
        notes, speech = (torch.from_numpy(arrays[f"{name}_x"]) for name in ("notes", "ljspeech"))
    cuts = [notes[i * 5000 :][:count] for i in range(3)] + [speech[i * 7000 :][:count] for i in range(3)]
    x_BN = torch.stack(cuts)
    z_BDT = source_filter.encode(x_BN)
    midi_BT, confidence_BT = z_BDT[:, 0] * MIDI_STEP + MIDI_CENTRE + 0.1, torch.sigmoid(2 * z_BDT[:, 1])
    torch.manual_seed(0)
    terms = Loss(source_filter)(x_BN, midi_BT, confidence_BT, used=0.5)
    # float32 sums in another order, and six digits were stored
    assert {name: terms[name].item() for name in PROTOTYPE_TERMS} == pytest.approx(PROTOTYPE_TERMS, abs=1e-4)


def test_every_weight_of_the_network_is_taught() -> None:
    model = SourceFilter(SMALL)
    x_BN = torch.cat([tone(100.0 * k, 20) for k in range(1, 9)] * 2)
    terms = Loss(model)(x_BN, torch.full((16, FRAMES), 50.0), torch.ones(16, FRAMES), used=0.1)
    assert all(value.ndim == 0 and torch.isfinite(value) for value in terms.values())
    terms["total"].backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().any()]
    # logits are compared with each other: what is added to all of them makes no difference but by rounding
    assert set(without) <= {"encoder.pitch.bias"}


@torch.no_grad()
def test_each_term_counts_by_its_weight() -> None:
    model = SourceFilter(SMALL)
    x_BN = torch.cat([tone(100.0 * k, 20) for k in range(1, 9)])
    none = Weights(*[0.0] * 8)
    names = [field.name for field in dataclasses.fields(Weights)]
    totals = {}
    for weights in (none, *(dataclasses.replace(none, **{name: 2.0}) for name in names)):
        torch.manual_seed(1)
        terms = Loss(model, weights)(x_BN, torch.full((8, FRAMES), 50.0), torch.ones(8, FRAMES), used=1.0)
        totals[weights] = terms["total"].item()
    for name in names:
        assert terms[name] > 0, name
        # differences of sums in float32
        more = totals[dataclasses.replace(none, **{name: 2.0})] - totals[none]
        assert more == pytest.approx(2 * terms[name].item(), rel=1e-5, abs=1e-5), name


@torch.no_grad()
def test_agreement_counts_fully_after_a_fifth_of_the_training() -> None:
    model = SourceFilter(SMALL)
    x_BN = torch.cat([tone(100.0 * k, 20) for k in range(1, 9)])
    arguments = (x_BN, torch.full((8, FRAMES), 50.0), torch.ones(8, FRAMES))
    totals = {}
    for used in (0.0, 0.1, 0.2, 1.0):
        torch.manual_seed(0)
        terms = Loss(model)(*arguments, used=used)
        totals[used] = terms["total"].item()
    whole = Weights().agree * terms["agree"].item()
    assert whole > 0
    # differences of totals in float32
    assert totals[0.2] - totals[0.0] == pytest.approx(whole, abs=1e-5)
    assert totals[0.1] - totals[0.0] == pytest.approx(whole / 2, abs=1e-5)
    assert totals[1.0] == totals[0.2]


def test_a_sine_has_its_amplitude() -> None:
    # 1500 Hz is a bin of this window
    spectrum_BFT = magnitudes(tone(1500.0), torch.hann_window(1024), 256)
    assert spectrum_BFT[0, 64, 4:-4].mean().item() == pytest.approx(0.1, rel=1e-4)


class TestDistances:
    @pytest.mark.parametrize("distance", [SpectralDistance(RATE), EnvelopeDistance(RATE), BandCorrelation(RATE)])
    def test_equals_are_at_zero_and_the_sign_is_not_seen(self, distance: torch.nn.Module) -> None:
        x_BN = 0.1 * torch.randn(2, 40 * HOP)
        # cosines of equals are 1 to rounding
        torch.testing.assert_close(distance(x_BN, x_BN), torch.zeros(2), atol=1e-6, rtol=0)
        torch.testing.assert_close(distance(x_BN, -x_BN), torch.zeros(2), atol=1e-4, rtol=0)
        other_BN = 0.1 * torch.randn(2, 40 * HOP)
        assert (distance(x_BN, other_BN) > 0.05).all()

    def test_gain_is_measured_in_nepers(self) -> None:
        x_BN = 0.5 * torch.randn(2, 40 * HOP)
        gain = 0.5
        # half of bands and half of the whole level, powers: twice the log of the gain. Guards against silence are small
        expected = -2 * math.log(gain)
        torch.testing.assert_close(
            EnvelopeDistance(RATE)(x_BN, gain * x_BN), torch.full((2,), expected), atol=0.01, rtol=0
        )
        # log mel, 3/8 of log magnitudes, and 3/8 of half the distance of roots: 2 of 4 sizes have them
        expected = -1.375 * math.log(gain) + 0.375 / 2 * (1 - math.sqrt(gain))
        torch.testing.assert_close(
            SpectralDistance(RATE)(x_BN, gain * x_BN), torch.full((2,), expected), atol=0.02, rtol=0
        )

    def test_the_envelope_does_not_see_the_pitch_as_the_spectrum_does(self) -> None:
        low_BN, high_BN = tone(150.0, 60), tone(170.0, 53)
        high_BN = high_BN * low_BN.norm() / high_BN.norm()
        assert EnvelopeDistance(RATE)(low_BN, high_BN) < 0.3 * SpectralDistance(RATE)(low_BN, high_BN)

    def test_the_correlation_sees_what_moves_and_not_the_level(self) -> None:
        x_BN = torch.randn(1, FRAMES * HOP) * (1 + torch.sin(torch.arange(FRAMES * HOP) / 1500))
        distance = BandCorrelation(RATE)
        assert distance(x_BN, 3 * x_BN).item() == pytest.approx(0, abs=1e-4)  # a guard against silence
        steady_BN = torch.randn(1, FRAMES * HOP)
        assert distance(x_BN, steady_BN) > 0.3

    def test_silence_is_finite_and_has_gradients(self) -> None:
        for distance in (SpectralDistance(RATE), EnvelopeDistance(RATE), BandCorrelation(RATE)):
            y_BN = torch.zeros(1, FRAMES * HOP, requires_grad=True)
            distance(torch.zeros(1, FRAMES * HOP), y_BN).sum().backward()
            assert y_BN.grad is not None and torch.isfinite(y_BN.grad).all()


@pytest.mark.parametrize("slope", [-4.0, 4.0])
def test_tilt_changes_octaves_by_its_slope_and_keeps_the_level(slope: float) -> None:
    mixed_BN = tone(1500.0) + tone(3000.0)
    tilted_BN = tilt(mixed_BN, torch.tensor([slope]), RATE)
    # what lies behind the end is cut off
    assert tilted_BN.square().mean().item() == pytest.approx(mixed_BN.square().mean().item(), rel=1e-3)
    low, high = ((tilted_BN * tone(hz)).sum() / (mixed_BN * tone(hz)).sum() for hz in (1500.0, 3000.0))
    assert 20 * (high / low).log10().item() == pytest.approx(slope, abs=0.1)


class TestPitchLoss:
    def test_the_bell_itself_is_the_least(self) -> None:
        place = 30 * PER_SEMITONE
        midi_BT, sure_BT = torch.full((1, 4), PITCH_LOW + 30.0), torch.ones(1, 4)
        bell = -0.5 * ((torch.arange(BINS) - place) / 0.8) ** 2
        right_BPT = bell[None, :, None].expand(1, -1, 4)
        least, weight_BT = pitch_loss(right_BPT, midi_BT, sure_BT)
        p = bell.softmax(0)
        # its own entropy
        assert least.item() == pytest.approx(-(p * p.clamp(min=1e-30).log()).sum().item(), abs=1e-4)
        assert weight_BT.tolist() == [[1.0] * 4]
        for moved in (-1, 1, PER_SEMITONE):
            assert pitch_loss(right_BPT.roll(moved, 1), midi_BT, sure_BT)[0] > least

    def test_frames_count_by_their_confidence_and_within_the_range(self) -> None:
        logits_BPT = torch.randn(1, BINS, 6)
        midi_BT = torch.tensor([[60.0, 60.0, 60.0, 60.0, 20.0, 120.0]])
        confidence_BT = torch.tensor([[0.3, 0.6, 0.8, 1.0, 1.0, 1.0]])
        loss, weight_BT = pitch_loss(logits_BPT, midi_BT, confidence_BT)
        torch.testing.assert_close(weight_BT, torch.tensor([[0.0, 0.5, 1.0, 1.0, 0.0, 0.0]]), atol=1e-6, rtol=0)
        alone = [pitch_loss(logits_BPT[..., t : t + 1], midi_BT[:, t : t + 1], torch.ones(1, 1))[0] for t in (1, 2, 3)]
        mean = (0.5 * alone[0] + alone[1] + alone[2]) / 2.5
        assert loss.item() == pytest.approx(mean.item(), abs=1e-4)

    def test_without_a_sure_frame_it_is_zero(self) -> None:
        loss, _ = pitch_loss(torch.randn(1, BINS, 3), torch.full((1, 3), 60.0), torch.zeros(1, 3))
        assert loss.item() == 0
