from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hooks import ModelError, at_time, attach, capture, open_model, wrap_model
from hooks.families.source_filter import SourceFilterCodec
from hooks.networks.source_filter import MIDI_STEP, SourceFilter, SourceFilterConfig
from steer.frame_labels import crepe

RATE, HOP = 24_000, 320
SMALL = SourceFilterConfig(
    dimension=8, encoder_width=16, encoder_layers=2, decoder_width=16, decoder_layers=2, pitch_channels=2, bands=16
)


@pytest.fixture
def codec() -> SourceFilterCodec:
    return SourceFilterCodec(SourceFilter(SMALL))


@pytest.fixture
def audio_BCN() -> Tensor:
    return 0.1 * torch.randn(2, 1, 10 * HOP + 1)


def tone(hz: float, seconds: float) -> Tensor:
    """[1, 1, N] of a tone with the harmonics and the slow decay of a voice."""
    phase = 2 * math.pi * hz * torch.arange(round(seconds * RATE)) / RATE
    return 0.1 * torch.stack([(k * phase + k * k).sin() / k for k in range(1, 30)]).sum(0)[None, None]


def write(folder: Path, **changes: Any) -> SourceFilter:
    module = SourceFilter(SMALL)
    (folder / "config.json").write_text(json.dumps({"architecture": "source_filter", **SMALL.to_dict(), **changes}))
    save_file({name: value.half() for name, value in module.state_dict().items()}, folder / "model.safetensors")
    return module


def test_without_edits_it_is_the_modules_own_forward(codec: SourceFilterCodec, audio_BCN: Tensor) -> None:
    with torch.no_grad():
        assert torch.equal(codec.run(audio_BCN)[:, 0], codec.module(audio_BCN[:, 0]))
        z_BTD = codec.encode(audio_BCN)
        assert z_BTD.shape == (2, 11, 8)
        assert codec.decode(z_BTD).shape == (2, 1, 11 * HOP)


def test_it_is_deterministic(codec: SourceFilterCodec, audio_BCN: Tensor) -> None:
    torch.manual_seed(1)
    one = codec.run(audio_BCN)
    torch.manual_seed(2)
    assert torch.equal(codec.run(audio_BCN), one)


def test_noise_is_that_of_the_time_in_the_recording(codec: SourceFilterCodec, audio_BCN: Tensor) -> None:
    plain = codec.run(audio_BCN)
    with at_time(0.0):
        assert torch.equal(codec.run(audio_BCN), plain)
    with at_time(1.0):
        later = codec.run(audio_BCN)
        assert torch.equal(codec.run(audio_BCN), later)
    assert not torch.equal(later, plain)


def test_a_carry_keeps_the_phase_of_the_last_chunk_only(codec: SourceFilterCodec, audio_BCN: Tensor) -> None:
    carry: dict[str, Any] = {}
    for start_s in (0.0, 0.1, 0.2):
        with at_time(start_s, carry):
            codec.run(audio_BCN)
    (phase,) = carry["phases"]
    assert phase.start == round(0.2 * RATE)
    assert phase.cycles_BN.shape == (2, 11 * HOP)


def test_every_site_is_as_declared(codec: SourceFilterCodec, audio_BCN: Tensor) -> None:
    names = list(codec.sites)
    assert names == ["pitch", "encoder.0", "encoder.1", "latent", "decoder.0", "decoder.1"]
    seen = next(capture(codec, [audio_BCN[0]], names)).activations
    for name, x_BTD in seen.items():
        codec.sites[name].measured(x_BTD)
        assert codec.sites[name].frame_rate == 75.0
        assert x_BTD.shape[:2] == (1, 11), name
    assert torch.equal(seen["latent"], codec.encode(audio_BCN[:1]))


def test_the_latent_is_passed_by_the_decoder_and_not_by_the_encoder(
    codec: SourceFilterCodec, audio_BCN: Tensor
) -> None:
    calls: list[Tensor] = []
    with attach(codec.module, codec.site("latent"), calls.append):
        z_BTD = codec.encode(audio_BCN)
        assert not calls
        codec.decode(z_BTD)
    assert torch.equal(calls[0], z_BTD)


@pytest.mark.parametrize("layers", [(2, 2), (4, 6), (2, 12)])
def test_the_context_is_enough_and_not_far_more(layers: tuple[int, int]) -> None:
    """Output more than `context_s` from a change of the input stays as it was."""
    config = dataclasses.replace(SMALL, encoder_layers=layers[0], decoder_layers=layers[1])
    codec = SourceFilterCodec(SourceFilter(config))
    for weight in codec.module.parameters():
        weight.data.normal_(0, 0.5)  # as they begin, little passes through the layers
    x_BCN = tone(150.0, 3.0)
    changed = x_BCN.clone()
    at = round(1.5 * RATE)
    changed[..., at:] = 0.1 * torch.randn(at)
    differs_N = (codec.run(changed) - codec.run(x_BCN))[0, 0].abs()
    # transforms of another length round in another order, and what passes all layers at their ends is small
    first = int((differs_N > 1e-5 * differs_N.max()).nonzero()[0])
    assert 0.3 * codec.context_s < (at - first) / RATE < codec.context_s


@pytest.mark.parametrize("semitones", [1, -3])
def test_a_sixth_on_the_first_coordinate_is_a_semitone(source_filter: SourceFilter, semitones: int) -> None:
    pytest.importorskip("torchcrepe", reason="extra eval: pitch by CREPE")
    codec = wrap_model(source_filter)
    x_BCN = tone(196.0, 1.0)

    def moved(x_BTD: Tensor) -> Tensor:
        x_BTD = x_BTD.clone()
        x_BTD[..., 0] += semitones / MIDI_STEP
        return x_BTD

    with attach(codec.module, codec.site("latent"), moved):
        edited_BCN = codec.run(x_BCN)
    before, after = (
        crepe(y_BCN[0], RATE, 75.0, 75, low=40, high=80)[0][8:-8].median().item()
        for y_BCN in (codec.run(x_BCN), edited_BCN)
    )
    # CREPE's small network is good for about 10 cents
    assert before == pytest.approx(69 + 12 * math.log2(196 / 440), abs=0.15)
    assert after - before == pytest.approx(semitones, abs=0.15)


class TestFolders:
    def test_weights_in_half_precision_are_read_as_float32(self, audio_BCN: Tensor, tmp_path: Path) -> None:
        write(tmp_path)
        codec = open_model(tmp_path)
        assert isinstance(codec, SourceFilterCodec)
        assert (codec.dtype, codec.sample_rate, codec.frame_rate, codec.hop_length) == (torch.float32, RATE, 75.0, HOP)
        state = load_file(tmp_path / "model.safetensors")
        assert all(torch.equal(value, state[name].float()) for name, value in codec.module.state_dict().items())
        assert codec.run(audio_BCN).shape == audio_BCN.shape

    def test_its_size_may_be_left_out(self, tmp_path: Path) -> None:
        module = SourceFilter()
        (tmp_path / "config.json").write_text('{"architecture": "source_filter"}')
        save_file(module.state_dict(), tmp_path / "model.safetensors")
        codec = open_model(tmp_path)
        assert codec.module.config == SourceFilterConfig()

    @pytest.mark.parametrize(
        "changes",
        [
            {"decoder_width": 24},
            {"bands": 20},
            {"hop_length": 321},
            {"hop_length": 0},
            {"dimension": "many"},
            {"dimension": None},
            {"encoder_layers": 3},
            {"encoder_layers": 0},
            {"sample_rate": -1},
            {"unknown": 1},
        ],
    )
    def test_configurations_that_do_not_fit(self, changes: dict[str, Any], tmp_path: Path) -> None:
        write(tmp_path, **changes)
        with pytest.raises(ModelError, match="not a source-filter codec that can be opened") as caught:
            open_model(tmp_path)
        assert "\n" not in str(caught.value)

    def test_a_size_that_no_weights_have_is_refused_before_it_is_filled(self, tmp_path: Path) -> None:
        write(tmp_path, decoder_width=1_000_000)
        with pytest.raises(ModelError, match="far larger than its weights"):
            open_model(tmp_path)

    @pytest.mark.parametrize(("file", "content"), [("model.safetensors", b"junk"), (None, b"")])
    def test_weights_that_cannot_be_read(self, file: str | None, content: bytes, tmp_path: Path) -> None:
        write(tmp_path)
        (tmp_path / "model.safetensors").unlink()
        if file is not None:
            (tmp_path / file).write_bytes(content)
        with pytest.raises(ModelError) as caught:
            open_model(tmp_path)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("change", ["missing", "unknown", "not finite"])
    def test_weights_that_do_not_fit(self, change: str, tmp_path: Path) -> None:
        state = {name: value.clone() for name, value in write(tmp_path).state_dict().items()}
        if change == "missing":
            del state["decoder.net.out.bias"]
        elif change == "unknown":
            state["decoder.more"] = torch.zeros(1)
        else:
            state["decoder.net.out.bias"][0] = torch.nan
        save_file(state, tmp_path / "model.safetensors")
        with pytest.raises(ModelError, match=r"decoder\.net\.out\.bias|decoder\.more") as caught:
            open_model(tmp_path)
        assert "\n" not in str(caught.value)
