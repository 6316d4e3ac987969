"""A change of spectrum as a smooth gain."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from steer.editing import transfer
from steer.editing.transfer import (
    BAND_END,
    ENVELOPE_DB,
    FINE_BANDS,
    MOST_DB,
    WIDE_BANDS,
    Gain,
    amplified,
    bands_of,
    between,
    change_of,
    crossed,
    envelope_of,
    inverse,
    sizes,
    spectrum,
)

RATE = 24_000


def noise(count: int = RATE, channels: int = 1, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(channels, count, generator=torch.Generator().manual_seed(seed))


def db(gain: Tensor) -> Tensor:
    return 20 * torch.log10(gain)


@pytest.mark.parametrize("rate", [8_000, 11_025, 24_000, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("count", [1, 100, 5_001, 30_000])
def test_a_spectrum_goes_back_to_the_sound(rate: int, count: int) -> None:
    x_CN = noise(count, 2)
    assert (inverse(spectrum(x_CN, rate), rate, count) - x_CN).abs().max() < 1e-6


@pytest.mark.parametrize("bands", [FINE_BANDS, WIDE_BANDS])
@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 48_000])
def test_bands_are_means_up_to_the_end_of_the_codecs_band(bands: tuple[int, float], rate: int) -> None:
    weights_FK, centres_K = bands_of(rate, sizes(rate)[0], bands)
    assert torch.allclose(weights_FK.sum(0), torch.ones(bands[0])) and (weights_FK >= 0).all()
    assert (centres_K.diff() > 0).all() and centres_K[-1] < BAND_END * rate
    assert not weights_FK[int(BAND_END * sizes(rate)[0]) + 2 :].any()


@pytest.mark.parametrize("factor", [0.1, 0.5, 1.0, 2.0, 10.0])
def test_a_flat_gain_is_found(factor: float) -> None:
    plain = spectrum(noise(), RATE)
    gain = change_of(plain, factor * plain, RATE)
    assert torch.allclose(gain.values_CTK, torch.tensor(factor), rtol=1e-3)
    if factor == 1:
        assert (gain.values_CTK == 1).all()


def test_a_tilt_is_found_and_carried_to_another_rate() -> None:
    plain = spectrum(noise(), RATE)
    hz_F, _ = transfer.grid(RATE, 1)
    tilt_F = (1 + hz_F / 6000)[:, None]
    gain = change_of(plain, plain * tilt_F, RATE)
    expected_K = db(1 + gain.centres_K / 6000)
    assert (db(gain.values_CTK.mean((0, 1))) - expected_K).abs().max() < 0.5
    other = spectrum(noise(48_000), 48_000)
    louder = amplified(other, gain, 48_000)
    change_F = db(louder.abs().mean((0, 2)) / other.abs().mean((0, 2)))
    hz_F, _ = transfer.grid(48_000, 1)
    inside_F = (hz_F > 300) & (hz_F < 10_000)
    assert (change_F - db(1 + hz_F / 6000))[inside_F].abs().max() < 0.7
    # above the codec's band: as the highest bands
    top = float(db(1 + gain.centres_K[-transfer.TOP_BANDS :] / 6000).mean())
    assert change_F[hz_F > 12_000] == pytest.approx(top, abs=0.3)


def test_gains_are_limited() -> None:
    plain = spectrum(noise(), RATE)
    for factor in (1e-9, 1e9):
        assert db(change_of(plain, factor * plain, RATE).values_CTK).abs().max() <= MOST_DB + 1e-3
        assert db(envelope_of(factor * plain, plain, RATE).values_CTK).abs().max() <= ENVELOPE_DB + 1e-3


def test_silence_has_a_gain_of_one() -> None:
    silence = spectrum(torch.zeros(1, RATE), RATE)
    assert (change_of(silence, silence, RATE).values_CTK == 1).all()


def test_a_band_without_sound_gets_the_gain_of_its_neighbours() -> None:
    hz_F, _ = transfer.grid(RATE, 1)
    gap_F = ((hz_F < 3000) | (hz_F > 3400))[:, None]
    plain = spectrum(noise(), RATE) * gap_F
    edited = 2 * plain + 1e-5 * spectrum(noise(seed=1), RATE)  # a trace of noise in the gap
    gain_K = db(change_of(plain, edited, RATE).values_CTK).mean((0, 1))
    assert (gain_K - 6.02).abs().max() < 0.5


def test_gains_between_bands_and_frames_are_on_straight_lines() -> None:
    gain = Gain(torch.tensor([[[1.0, 3.0], [2.0, 4.0]]]), torch.tensor([100.0, 200.0]), 0.01)
    values_CFT = gain.at(torch.tensor([0.0, 100.0, 150.0, 200.0, 900.0]), torch.tensor([-1.0, 0.0, 0.005, 0.01, 1.0]))
    assert torch.allclose(values_CFT[0, :, 1], torch.tensor([1.0, 1.0, 2.0, 3.0, 3.0]))
    assert torch.allclose(values_CFT[0, 1], torch.tensor([1.0, 1.0, 1.5, 2.0, 2.0]))
    # in dB the mean of the highest bands
    assert torch.allclose(gain.above(torch.tensor([0.0])), torch.tensor(3.0).sqrt())


def test_between() -> None:
    values = torch.tensor([[0.0, 10.0, 30.0]])
    assert torch.equal(between(values, torch.tensor([0.0, 0.5, 2.0, 1.5]), 1), torch.tensor([[0.0, 5.0, 30.0, 20.0]]))


def test_the_codecs_band_is_the_codecs_and_above_is_the_sounds() -> None:
    codec, sound = spectrum(noise(48_000, seed=1), 48_000), spectrum(noise(48_000, seed=2), 48_000)
    both = crossed(codec, sound, 6.0, 48_000, RATE)
    hz_F, _ = transfer.grid(48_000, 1)
    low_F, high_F = hz_F < 0.44 * RATE, hz_F > 0.471 * RATE
    assert torch.equal(both[:, low_F], codec[:, low_F])
    assert torch.allclose(both[:, high_F], sound[:, high_F] * 10**0.3)
