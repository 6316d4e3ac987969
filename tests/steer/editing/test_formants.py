"""Moved formants, as changes of the latent and as shifts of features."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from hooks import at_time, wrap_model
from hooks.model import Codec
from hooks.networks.source_filter import SourceFilter
from steer import SAE, SteeredModel
from steer.editing.formants import as_shifts, change_of_latent
from steer.editing.voice_edits import VoiceEdits
from steer.values import Curve
from steer.voice import Voice


@pytest.fixture
def codec(source_filter: SourceFilter) -> Codec:
    codec = wrap_model(source_filter)
    assert isinstance(codec, Codec)
    return codec


def noise(seconds: float) -> Tensor:
    return 0.1 * torch.randn(1, round(seconds * 24_000), generator=torch.Generator().manual_seed(0))


def test_nothing_moves_by_nothing(codec: Codec) -> None:
    audio_CN = noise(1.0)
    z_CTD = codec.encode(audio_CN[:, None])
    assert change_of_latent(codec, z_CTD, audio_CN, 0.0, 0.0).abs().max() < 1e-4


@pytest.mark.parametrize("semitones", [-12.0, -3.0, 4.0, 12.0])
def test_pitch_and_voicing_stay(codec: Codec, semitones: float) -> None:
    audio_CN = noise(0.7)
    z_CTD = codec.encode(audio_CN[:, None])
    change_CTD = change_of_latent(codec, z_CTD, audio_CN, semitones, 0.0)
    assert change_CTD.shape == z_CTD.shape and torch.isfinite(change_CTD).all()
    assert (change_CTD[..., :2] == 0).all() and change_CTD[..., 2:].abs().max() > 0.1


def test_a_sound_of_one_frame(codec: Codec) -> None:
    audio_CN = noise(0.01)
    z_CTD = codec.encode(audio_CN[:, None])
    assert change_of_latent(codec, z_CTD, audio_CN, 12.0, 0.0).shape == (1, 1, 64)


def test_shifts_add_up_to_the_change() -> None:
    generator = torch.Generator().manual_seed(0)
    change_TD, W_dec = torch.randn(20, 8, generator=generator), torch.randn(32, 8, generator=generator)
    seconds_T = (torch.arange(20, dtype=torch.float64) + 0.5) / 75
    total_TD = torch.zeros(20, 8, dtype=torch.float64)
    shifts = as_shifts(change_TD, W_dec, seconds_T, None)
    for shift in shifts:
        assert isinstance(shift.strength, Curve)
        total_TD += shift.strength.at(seconds_T)[:, None] * (shift.vector.double() @ W_dec.double())
    torch.testing.assert_close(total_TD, change_TD.double(), atol=1e-5, rtol=0)  # vectors are float32
    # what is of rank 1 takes one shift
    assert len(as_shifts(change_TD[:, :1] * change_TD[:1], W_dec, seconds_T, None)) == 1
    assert as_shifts(torch.zeros(20, 8), W_dec, seconds_T, None) == []


@pytest.mark.parametrize("normalize", [None, "layer_norm"])
def test_features_of_an_sae_that_normalises_count_by_frame(codec: Codec, normalize: str | None) -> None:
    """The change that the edits make is the one that was asked for, whatever scale the SAE gives a frame."""
    torch.manual_seed(0)
    sae = SAE(64, 128, "relu", normalize=normalize).requires_grad_(False)
    audio_CN = noise(0.7)
    z_CTD = codec.encode(audio_CN[:, None])
    edits = VoiceEdits(Voice(formants=2.0), codec, {}, sae, None, [])(z_CTD, audio_CN, 0.0)
    with torch.no_grad(), at_time(0.0):
        edited_CTD = SteeredModel(codec, {"latent": sae}, check=False).changes(edits)["latent"](z_CTD)
    wanted_CTD = change_of_latent(codec, z_CTD, audio_CN, 2.0, 0.0)
    off = (edited_CTD - z_CTD - wanted_CTD).norm() / wanted_CTD.norm()
    assert off < 2e-3  # principal directions of 1e-3 are left out
