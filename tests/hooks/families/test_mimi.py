"""Mimi with random weights, small but with the published strides, rates and kinds of layers."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hooks import Clip, ModelError, attach, capture, open_model, wrap_model
from hooks.attach import Change
from hooks.families.mimi import MimiCodec
from tests.hooks.contract.mimi import FRAME, SMALL, build, stream_in

transformers = pytest.importorskip("transformers", reason="extra mimi")


@cache
def opened() -> MimiCodec:
    torch.manual_seed(0)
    model = wrap_model(build())
    assert isinstance(model, MimiCodec)
    return model


@pytest.fixture
def codec() -> MimiCodec:
    return opened()


def noise(samples: int, rows: int = 2) -> Tensor:
    return torch.randn(rows, 1, samples, generator=torch.Generator().manual_seed(1)) * torch.linspace(
        0.05, 0.5, samples
    )


@torch.no_grad()
def own_round_trip(module: Any, audio_BCN: Tensor, **options: Any) -> Tensor:
    return module(audio_BCN, **options).audio_values


def push(width: int, size: float = 3.0) -> Change:
    direction_D = torch.randn(width, generator=torch.Generator().manual_seed(2))
    return lambda x_BTD: x_BTD + size * direction_D


# --- the round trip ---


@pytest.mark.parametrize("samples", [1, 480, 1_919, 1_920, 1_921, 7_000])
def test_without_edits_it_is_the_librarys_own_round_trip(codec: MimiCodec, samples: int) -> None:
    audio_BCN = noise(samples)
    output_BCN = codec.run(audio_BCN)
    assert output_BCN.shape == audio_BCN.shape
    assert torch.equal(output_BCN, own_round_trip(codec.module, audio_BCN))


def test_fewer_codebooks(codec: MimiCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    audio_BCN = noise(6_000)
    monkeypatch.setattr(codec, "num_quantizers", 2)
    few = codec.run(audio_BCN)
    assert torch.equal(few, own_round_trip(codec.module, audio_BCN, num_quantizers=2))
    assert not torch.equal(few, own_round_trip(codec.module, audio_BCN))
    monkeypatch.setattr(codec, "num_quantizers", 99)
    with pytest.raises(ValueError, match="total number of quantizers 8"):  # its own word
        codec.run(audio_BCN)


@torch.no_grad()
def test_past_the_quantiser(codec: MimiCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    audio_BCN = noise(6_000)
    latents_BTD = codec.encode(audio_BCN)
    assert latents_BTD.shape == (2, 4, 32)
    # exactly what the library's two halves do
    assert torch.equal(latents_BTD.transpose(1, 2), codec.module.encoder(audio_BCN).latents)
    whole = codec.module.decoder(latents_BTD.transpose(1, 2)).audio_values
    assert torch.equal(codec.decode(latents_BTD), whole)
    monkeypatch.setattr(codec, "quantize", False)
    assert torch.equal(codec.run(audio_BCN), whole[..., :6_000])
    seen = next(capture(codec, [audio_BCN[0]], ["latent", "decoder_input"])).activations
    assert torch.equal(seen["latent"], seen["decoder_input"])


def test_a_configuration_that_streams_still_gives_whole_sounds(codec: MimiCodec) -> None:
    streaming = transformers.MimiModel(transformers.MimiConfig(**SMALL, use_streaming=True))
    streaming.load_state_dict(codec.module.state_dict())
    audio_BCN = noise(7_000)
    assert torch.equal(wrap_model(streaming).run(audio_BCN), codec.run(audio_BCN))


def test_resynthesize_takes_any_rate_and_channels(codec: MimiCodec) -> None:
    back = codec.resynthesize(Clip(0.1 * torch.randn(2, 8_000), 16_000))
    assert (back.sample_rate, back.waveform.shape) == (24_000, (1, 12_000))


# --- sites ---


def test_every_site_is_as_declared(codec: MimiCodec) -> None:
    assert list(codec.sites) == [
        *(f"encoder.{index}" for index in range(15)),
        *(f"encoder_transformer.{index}" for index in range(3)),
        "latent",
        "decoder_input",
        *(f"decoder_transformer.{index}" for index in range(3)),
        *(f"decoder.{index}" for index in range(15)),
    ]
    rates = {name: site.frame_rate for name, site in codec.sites.items()}
    assert (rates["encoder.0"], rates["encoder.14"], rates["encoder_transformer.0"]) == (24_000, 25, 25)
    assert (rates["latent"], rates["decoder_input"], codec.frame_rate) == (12.5, 12.5, 12.5)
    assert (rates["decoder_transformer.2"], rates["decoder.0"], rates["decoder.14"]) == (25, 25, 24_000)
    assert (codec.hop_length, codec.context_s) == (1_920, 10.0)
    seen = next(capture(codec, [noise(5 * FRAME)[0]], list(codec.sites))).activations
    for name, x_BTD in seen.items():
        assert x_BTD.shape[1] == 5 * FRAME / 24_000 * (rates[name] or 0), name


def test_sites_say_what_the_library_says(codec: MimiCodec) -> None:
    audio_BCN = noise(5 * FRAME, rows=1)
    names = [*(f"encoder_transformer.{index}" for index in range(3)), "encoder.14", "latent", "decoder_input"]
    seen = next(capture(codec, [audio_BCN[0]], names)).activations
    # on a copy, since asking for hidden states leaves hooks of the library on the module
    module = copy.deepcopy(codec.module)
    with torch.no_grad():
        coded = module.encode(audio_BCN, output_hidden_states=True)
    for name, state_BTD in zip(["encoder.14", *names[:3]], coded.hidden_states, strict=True):
        assert torch.equal(seen[name], state_BTD), name
    assert torch.equal(module.quantizer.encode(seen["latent"].transpose(1, 2)), coded.audio_codes.transpose(0, 1))
    # the library adds to this very tensor later on in place
    assert torch.equal(seen["decoder_input"].transpose(1, 2), module.quantizer.decode(coded.audio_codes))


def test_before_transformers_5_21_the_parts_lay_on_the_model(codec: MimiCodec) -> None:
    whole = codec.module
    flat = nn.Module()
    flat.config = whole.config  # type: ignore[assignment]
    flat.encoder, flat.decoder = whole.encoder.encoder_seanet, whole.decoder.decoder_seanet
    flat.encoder_transformer, flat.downsample = whole.encoder.encoder_transformer, whole.encoder.downsample
    flat.decoder_transformer, flat.upsample = whole.decoder.decoder_transformer, whole.decoder.upsample
    flat.quantizer = whole.quantizer
    older = MimiCodec(flat, "older")
    audio_BCN = noise(3 * FRAME)
    older.quantize = False
    with attach(flat, older.site("encoder_transformer.1"), push(32)):
        edited = older.run(audio_BCN)
    with torch.no_grad(), attach(whole, codec.site("encoder_transformer.1"), push(32)):
        assert torch.equal(edited, codec.decode(codec.encode(audio_BCN)))
    assert [(site.name, site.frame_rate) for site in older.sites.values()] == [
        (site.name, site.frame_rate) for site in codec.sites.values()
    ]


# --- streaming ---


@torch.no_grad()
@pytest.mark.parametrize(("name", "width"), [("encoder.3", 8), ("encoder_transformer.1", 32), ("latent", 32)])
def test_a_stream_is_edited_as_the_whole_is(codec: MimiCodec, name: str, width: int) -> None:
    """What an edit changes goes on into the caches of convolutions and attention."""
    audio_BCN = noise(6 * FRAME, rows=1)
    plain_BTD, seen = codec.encode(audio_BCN), []
    with (
        attach(codec.module, codec.site(name), push(width)),
        attach(codec.module, codec.site("latent"), lambda z_BTD: seen.append(z_BTD.clone())),
    ):
        codec.module.encode(audio_BCN)
        stream_in(codec, audio_BCN)
    whole_BTD, stream_BTD = seen[0], torch.cat(seen[1:], dim=1)
    assert len(seen) == 4  # the whole, and three calls of two frames each
    # sums over a chunk are taken in another order than over the whole
    torch.testing.assert_close(stream_BTD, whole_BTD, atol=1e-4 * float(whole_BTD.std()), rtol=1e-4)
    assert not torch.allclose(whole_BTD, plain_BTD, atol=1e-2 * float(whole_BTD.std()))


# --- the centroids that the library keeps ---


def fresh_codec(seed: int) -> MimiCodec:
    torch.manual_seed(seed)
    model = wrap_model(build())
    assert isinstance(model, MimiCodec)
    return model


def test_a_module_that_was_used_is_wrapped_without_what_it_kept() -> None:
    module, other = fresh_codec(0).module, fresh_codec(1)
    audio_BCN = noise(3 * FRAME)
    own_round_trip(module, audio_BCN)
    module.load_state_dict(other.module.state_dict())
    kept = own_round_trip(module, audio_BCN)
    wanted = own_round_trip(other.module, audio_BCN)
    assert not torch.equal(kept, wanted)  # the trap, as long as the library has it
    wrap_model(module)
    assert torch.equal(own_round_trip(module, audio_BCN), wanted)


@torch.no_grad()
@pytest.mark.parametrize("way", ["run", "call"])
def test_weights_that_are_loaded_later_are_used(way: str) -> None:
    codec, other = fresh_codec(0), fresh_codec(1)
    audio_BCN = noise(3 * FRAME)
    codec.run(audio_BCN)
    codec.module.load_state_dict(other.module.state_dict())
    output = codec.run(audio_BCN) if way == "run" else codec(audio_BCN).audio_values
    assert torch.equal(output, own_round_trip(other.module, audio_BCN))


def test_a_cast_after_use() -> None:
    codec = fresh_codec(0)
    codec.run(noise(FRAME))
    codec.module.to(torch.bfloat16)
    assert codec.run(noise(FRAME).to(torch.bfloat16)).dtype == torch.bfloat16


def test_centroids_are_kept_as_long_as_nothing_changes(codec: MimiCodec) -> None:
    book = codec.module.quantizer.semantic_residual_vector_quantizer.layers[0].codebook
    codec.run(noise(FRAME))
    kept = book._embed
    codec.run(noise(FRAME))
    assert book._embed is kept is not None


# --- opening ---


class TestFolders:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        torch.manual_seed(0)
        build().save_pretrained(tmp_path / "model")
        return tmp_path / "model"

    def test_what_save_pretrained_wrote(self, folder: Path) -> None:
        model = open_model(folder)
        audio_BCN = noise(3_000)
        assert torch.equal(
            model.run(audio_BCN), own_round_trip(transformers.MimiModel.from_pretrained(folder), audio_BCN)
        )
        assert (type(model), model.name) == (MimiCodec, str(folder))
        assert wrap_model(transformers.MimiModel.from_pretrained(folder)).name == str(folder)

    def test_from_the_hub(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[tuple[str, str | None]] = []

        def snapshot(repository: str, revision: str | None, **options: object) -> str:
            asked.append((repository, revision))
            return str(folder)

        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
        assert open_model("hf:kyutai/mimi", revision="main").name == "hf:kyutai/mimi"
        assert asked == [("kyutai/mimi", "main")]

    def test_missing_weights_are_not_made_up(self, folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        gone = next(name for name in state if name.startswith("decoder"))
        del state[gone]
        save_file(state, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(ModelError, match="1 weights are not in its file, among them decoder"):
            open_model(folder)

    @pytest.mark.parametrize("damage", ["junk", "no file", "other shape", "not finite", "half"])
    def test_damaged_folders_are_one_line(self, folder: Path, damage: str) -> None:
        weights, config = folder / "model.safetensors", folder / "config.json"
        if damage == "junk":
            weights.write_bytes(b"junk")
        elif damage == "no file":
            weights.unlink()
        elif damage == "other shape":
            config.write_text(config.read_text().replace('"intermediate_size": 64', '"intermediate_size": 48'))
        elif damage == "not finite":
            state = load_file(weights)
            state["upsample.conv.weight"][0] = float("nan")
            save_file(state, weights, {"format": "pt"})
        else:
            config.write_text(config.read_text().replace("{", '{"encoder_config": null,', 1))
        with pytest.raises(ModelError) as caught:
            open_model(folder)
        assert "\n" not in str(caught.value)
        wanted = {"not finite": "upsample.conv.weight has values that are not finite", "half": "has no encoder"}
        assert wanted.get(damage, str(folder)) in str(caught.value)
