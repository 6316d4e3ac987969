from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from hooks import ModelError, attach, capture, open_model
from hooks.families.wavtokenizer import WavTokenizerCodec
from hooks.networks.wavtokenizer import IGNORED_PREFIXES, WavTokenizer, WavTokenizerConfig


@pytest.fixture
def audio_BCN() -> Tensor:
    return torch.randn(2, 1, 1_200)


def write_config(folder: Path, config: WavTokenizerConfig, **more: object) -> None:
    (folder / "config.json").write_text(json.dumps({"architecture": "wavtokenizer", **config.to_dict(), **more}))


@pytest.mark.parametrize("quantize", [False, True])
def test_without_edits_it_is_the_modules_own_forward(
    codec: WavTokenizerCodec, audio_BCN: Tensor, quantize: bool
) -> None:
    codec.quantize = quantize
    with torch.no_grad():
        assert torch.equal(codec.run(audio_BCN)[:, 0], codec.module(audio_BCN[:, 0], quantize=quantize))


@torch.no_grad()
def test_run_is_encode_then_decode(codec: WavTokenizerCodec, audio_BCN: Tensor) -> None:
    z_BTD = codec.encode(audio_BCN)
    assert z_BTD.shape == (2, 30, 8)
    assert torch.equal(codec.decode(z_BTD), codec.run(audio_BCN))


def test_every_site_is_as_declared(codec: WavTokenizerCodec, audio_BCN: Tensor) -> None:
    names = list(codec.sites)
    assert names == [
        *(f"encoder.{index}" for index in range(13)),
        "latent",
        "decoder_input",
        "decoder.0",
        "decoder.1",
        "decoder_output",
    ]
    seen = next(capture(codec, [audio_BCN[0]], names)).activations
    for name, x_BTD in seen.items():
        site = codec.sites[name]
        site.measured(x_BTD)
        assert site.frame_rate is not None
        assert x_BTD.shape[:2] == (1, round(1_200 / 8_000 * site.frame_rate)), name
    assert torch.equal(seen["latent"], seen["encoder.12"])
    assert torch.equal(seen["latent"], seen["decoder_input"])


@pytest.mark.parametrize("name", ["encoder.0", "encoder.5", "latent", "decoder_input", "decoder.1", "decoder_output"])
def test_edits_are_heard(codec: WavTokenizerCodec, audio_BCN: Tensor, name: str) -> None:
    plain = codec.run(audio_BCN)
    with attach(codec.module, codec.site(name), lambda x_BTD: x_BTD * 1.5 + 0.1):
        assert not torch.equal(codec.run(audio_BCN), plain)
    assert torch.equal(codec.run(audio_BCN), plain)


def test_the_latent_is_before_the_quantiser_and_the_decoder_input_behind(
    codec: WavTokenizerCodec, audio_BCN: Tensor
) -> None:
    codec.quantize = True
    seen = next(capture(codec, [audio_BCN[0]], ["latent", "decoder_input"])).activations
    quantized_BDT, _ = codec.quantizer(seen["latent"].transpose(1, 2))
    assert torch.equal(seen["decoder_input"].transpose(1, 2), quantized_BDT)


class TestFolders:
    def test_half_precision_weights_are_read_as_float32(
        self, config: WavTokenizerConfig, codec: WavTokenizerCodec, tmp_path: Path
    ) -> None:
        write_config(tmp_path, config, quantize=False)
        save_file({name: value.half() for name, value in codec.state_dict().items()}, tmp_path / "model.safetensors")
        model = open_model(tmp_path)
        assert isinstance(model, WavTokenizerCodec)
        assert model.dtype == torch.float32
        assert not model.quantize

    def test_a_checkpoint_of_its_training(
        self, config: WavTokenizerConfig, codec: WavTokenizerCodec, audio_BCN: Tensor, tmp_path: Path
    ) -> None:
        write_config(tmp_path, config)
        extra = {f"{prefix}x": torch.zeros(1) for prefix in IGNORED_PREFIXES}
        torch.save({"state_dict": codec.state_dict() | extra, "epoch": 3}, tmp_path / "last.ckpt")
        model = open_model(tmp_path)
        assert isinstance(model, WavTokenizerCodec)
        assert model.quantize  # as the published models are used
        codec.quantize = True
        assert torch.equal(model.run(audio_BCN), codec.run(audio_BCN))

    def test_code_in_a_checkpoint_is_never_run(self, config: WavTokenizerConfig, tmp_path: Path) -> None:
        class Trap:
            def __reduce__(self) -> tuple[object, tuple[str]]:
                return Path.touch, (tmp_path / "sprung",)  # type: ignore[return-value]

        write_config(tmp_path, config)
        torch.save({"state_dict": Trap()}, tmp_path / "model.ckpt")
        with pytest.raises(ModelError, match="not a WavTokenizer that can be opened"):
            open_model(tmp_path)
        assert not (tmp_path / "sprung").exists()

    def test_weights_that_do_not_fit(self, config: WavTokenizerConfig, tmp_path: Path) -> None:
        write_config(tmp_path, config)
        state = WavTokenizer(config).state_dict()
        del state["head.out.bias"]
        save_file(state, tmp_path / "model.safetensors")
        with pytest.raises(ModelError, match=r"head\.out\.bias") as caught:
            open_model(tmp_path)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(("file", "content"), [("model.safetensors", b"junk"), ("model.ckpt", b""), (None, b"")])
    def test_weights_that_cannot_be_read(
        self, file: str | None, content: bytes, config: WavTokenizerConfig, tmp_path: Path
    ) -> None:
        write_config(tmp_path, config)
        if file is not None:
            (tmp_path / file).write_bytes(content)
        with pytest.raises(ModelError) as caught:
            open_model(tmp_path)
        assert "\n" not in str(caught.value)
