from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import soundfile
import torch

from hooks.families.source_filter import SourceFilterCodec
from hooks.networks.source_filter import MIDI_STEP, SourceFilter, SourceFilterConfig
from steer import SAE, ControlVector, SteeredModel
from steer.probes import Bins, Probe
from training.latent_vectors import (
    SITE,
    chosen,
    drawn,
    found_ways,
    in_semitones,
    in_units,
    latents,
    level,
    pitch_direction,
    pitch_pairs,
    sound_of,
    taught_directions,
)
from training.pitched import Batches, Recordings

CONFIG = SourceFilterConfig(
    dimension=8, encoder_width=16, encoder_layers=2, decoder_width=16, decoder_layers=2, pitch_channels=2, bands=16
)
RATE, HOP = CONFIG.sample_rate, CONFIG.hop_length


@pytest.fixture(scope="module")
def codec() -> SourceFilterCodec:
    """Random, but the first free channel is a gain: 1 is 3 dB, for harmonics and noise alike."""
    torch.manual_seed(0)
    module = SourceFilter(CONFIG)
    net = module.decoder.net
    with torch.no_grad():
        module.directions.copy_(torch.eye(2, CONFIG.dimension - 2))
        for block in net.blocks:
            block.gamma.zero_()  # type: ignore[union-attr, operator]
        net.embed.weight.zero_()
        basis = torch.linalg.qr(torch.cat([torch.ones(16, 1), torch.randn(16, 2)], 1))[0]
        net.embed.weight[:, 1, 1] = 0.1 * basis[:, 1]
        # an offset that is large beside the gain, so that the layer norms leave the gain (nearly) alone
        net.embed.bias.copy_(4 * basis[:, 2])
        net.out.weight.copy_((0.1151 * 3 * 10 * basis[:, 1])[None].expand_as(net.out.weight))
    return SourceFilterCodec(module)


@pytest.fixture(scope="module")
def sae() -> SAE:
    torch.manual_seed(1)
    return SAE(CONFIG.dimension, 64, "relu").requires_grad_(False)


@pytest.fixture
def batches() -> Batches:
    """Three seconds of a tone of note 57, and what is made beside it."""
    time_N = torch.arange(225 * HOP) / RATE
    wave_N = 0.05 * torch.stack([(2 * torch.pi * 220 * k * time_N).sin() / k for k in range(1, 9)]).sum(0)
    labels = torch.tensor([57.0, 1.0]).expand(225, 2)
    return Batches(Recordings(wave_N, labels, {"singing": [(0, 225)]}, RATE, HOP), 6, 32, seed=0)


def test_segments_with_a_pitch_are_voiced_for_the_most_part(batches: Batches) -> None:
    assert len(drawn(batches, 9)) == 9
    for x_N, midi_T in drawn(batches, 4, pitched=True):
        assert x_N.shape == (32 * HOP,)
        assert midi_T.isfinite().float().mean() > 0.5


def test_known_directions(codec: SourceFilterCodec) -> None:
    assert pitch_direction(codec).tolist() == [pytest.approx(1 / MIDI_STEP), *[0.0] * 7]
    louder, brighter = taught_directions(codec)
    # 6 dB is a step of length 2, 3 dB per octave one of length 1
    torch.testing.assert_close(louder, torch.eye(8)[2] / 3)
    torch.testing.assert_close(brighter, torch.eye(8)[3] / 3)


def test_pairs_of_pitch_are_the_codecs_own_output_moved(
    codec: SourceFilterCodec, batches: Batches, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The encoder is a stranger to notes here, so what it would read is put in its place."""
    heard = []

    class Same:
        def encode(self, z_TD: torch.Tensor) -> torch.Tensor:
            return z_TD

    def keep(codec: SourceFilterCodec, z_TD: torch.Tensor) -> torch.Tensor:
        heard.append(z_TD)
        return sound_of(codec, z_TD)

    monkeypatch.setattr("training.latent_vectors.sound_of", keep)
    ((_, _, amount),) = pitch_pairs(codec, Same(), drawn(batches, 1, pitched=True), codec)  # type: ignore[arg-type]
    plain_TD, moved_TD = heard
    difference = moved_TD - plain_TD
    torch.testing.assert_close(difference[:, 0] * MIDI_STEP, torch.full((32,), amount), atol=1e-4, rtol=1e-4)
    assert not difference[:, 1:].any()
    assert 2 <= abs(amount) <= 6


def test_units_are_those_of_the_output(codec: SourceFilterCodec, sae: SAE, batches: Batches) -> None:
    segments = drawn(batches, 4)
    vector = ControlVector(7 * torch.linalg.pinv(sae.W_dec).T @ torch.eye(8)[2])
    found = in_units(codec, sae, vector, partial(level, codec), segments, length=0.5)
    gained = []
    for x_N, _ in segments:
        z_TD = latents(codec, x_N)
        outputs = [level(codec, sound_of(codec, z_TD + s * found.vector @ sae.W_dec)) for s in (0.0, 1.0)]
        gained.append(float((outputs[1] - outputs[0]).median()))
    assert sorted(gained)[2] == pytest.approx(1, abs=0.2)
    semitones = in_semitones(sae, ControlVector(torch.randn(64))).vector @ sae.W_dec
    assert float(semitones[0]) == pytest.approx(1 / MIDI_STEP, rel=1e-4)


def test_all_ways_have_names_and_units(codec: SourceFilterCodec, sae: SAE, batches: Batches) -> None:
    def probe(name: str, unit: str) -> Probe:
        bins = Bins(name, (0.0, 1.0, 2.0), unit)
        return Probe(bins, torch.randn(3, 64), torch.zeros(3), torch.ones(3, dtype=torch.long), SITE)

    probes = {"loudness": probe("loudness", "dB"), "brightness": probe("brightness", "Hz"), "pitch": probe("p", "MIDI")}
    ways = found_ways(codec, sae, probes, batches, 4)
    assert {name: set(some) for name, some in ways.items()} == {
        **{name: {"lstsq", "pairs", "probe"} for name in ("loudness", "brightness", "pitch")},
        "voicing": {"lstsq"},
        "whisper": {"lstsq"},
    }
    pitch = ways["pitch"]["lstsq"]
    assert (pitch.name, pitch.unit, pitch.site) == ("pitch-lstsq", "1 semitone higher", "latent")
    torch.testing.assert_close(pitch.vector @ sae.W_dec, pitch_direction(codec), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(ways["voicing"]["lstsq"].vector @ sae.W_dec, torch.eye(8)[1], atol=1e-5, rtol=1e-4)
    for vector in ways["pitch"].values():
        assert float((vector.vector @ sae.W_dec)[0]) == pytest.approx(1 / MIDI_STEP, rel=1e-3)


def test_the_best_way_gets_the_plain_name(codec: SourceFilterCodec, sae: SAE, batches: Batches, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", drawn(batches, 1)[0][0].numpy(), RATE)
    from hooks import read_clip

    louder = in_units(
        codec,
        sae,
        ControlVector(torch.linalg.pinv(sae.W_dec).T @ torch.eye(8)[2], "loudness-pairs", site=SITE),
        partial(level, codec),
        drawn(batches, 4),
    )
    # the random decoder is far from the input in level: let the way that undoes that be the best
    ways = {
        "loudness": {"probe": replace(louder * 0, name="loudness-probe"), "pairs": louder},
        "voicing": {"lstsq": replace(louder, name="voicing-lstsq")},
    }
    vectors, scores = chosen(ways, SteeredModel(codec, sae, SITE, check=False), [read_clip(tmp_path / "a.wav")])
    best = min(scores, key=lambda name: scores[name])
    assert set(scores) == {"loudness-probe", "loudness-pairs"}
    assert vectors["loudness"].name == best
    assert set(vectors) == {"loudness", "voicing", *set(scores) - {best}}
