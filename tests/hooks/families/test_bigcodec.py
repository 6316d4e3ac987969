from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from hooks import ModelError, attach, capture, open_model, wrap_model
from hooks.families.bigcodec import BigCodecCodec
from hooks.networks.bigcodec import BigCodec
from tests.hooks.contract.bigcodec import SMALL, build


@pytest.fixture
def codec() -> BigCodecCodec:
    torch.manual_seed(0)
    return BigCodecCodec(build(SMALL))


@pytest.fixture
def audio_BCN() -> Tensor:
    return 0.3 * torch.randn(2, 1, 4_800)


def published(module: BigCodec) -> dict[str, dict[str, Tensor]]:
    return {"CodecEnc": module.encoder.state_dict(), "generator": module.decoder.state_dict()}


@torch.no_grad()
@pytest.mark.parametrize("quantize", [True, False])
def test_run_is_encode_quantise_and_decode(codec: BigCodecCodec, audio_BCN: Tensor, quantize: bool) -> None:
    codec.quantize = quantize
    z_BTD = codec.encode(audio_BCN)
    assert z_BTD.shape == (2, 24, 16)
    if quantize:
        q_BDT, codes_KBT = codec.module.decoder(z_BTD.transpose(1, 2), vq=True)
        assert len(codes_KBT.unique()) > 1
        z_BTD = q_BDT.transpose(1, 2)
    audio = codec.decode(z_BTD)
    assert audio.shape == audio_BCN.shape
    assert torch.equal(audio, codec.run(audio_BCN))


@pytest.mark.parametrize("samples", [1, 199, 200, 201, 1_000])
def test_the_length_of_the_sound_is_kept(codec: BigCodecCodec, samples: int) -> None:
    assert codec.run(torch.randn(1, 1, samples)).shape == (1, 1, samples)
    assert codec.encode(torch.randn(1, 1, samples)).shape[1] == -(-samples // codec.hop_length)


def test_sites_are_in_the_order_of_the_sound(codec: BigCodecCodec, audio_BCN: Tensor) -> None:
    names = list(codec.sites)
    assert names == [
        *(f"encoder.{index}" for index in range(9)),
        "latent",
        "decoder_input",
        *(f"decoder.{index}" for index in range(10)),
    ]
    seen = next(capture(codec, [audio_BCN[0]], names)).activations
    for name, x_BTD in seen.items():
        site = codec.sites[name]
        assert site.width == x_BTD.shape[2], name
        assert site.frame_rate is not None
        assert x_BTD.shape[:2] == (1, round(0.3 * site.frame_rate)), name
    assert torch.equal(seen["latent"], seen["encoder.8"])
    q_BDT, _ = codec.quantizer(seen["latent"].transpose(1, 2))
    assert torch.equal(seen["decoder_input"].transpose(1, 2), q_BDT)
    assert torch.equal(seen["decoder.9"], seen["decoder.8"].tanh())


def test_published_sites_have_the_published_widths_and_rates() -> None:
    with torch.device("meta"):
        codec = BigCodecCodec(BigCodec())
    shown = {name: (site.width, site.frame_rate) for name, site in codec.sites.items()}
    assert shown["latent"] == shown["decoder_input"] == (1024, 80.0)
    encoder = [shown[f"encoder.{index}"] for index in range(9)]
    assert encoder == [
        (48, 16_000),
        (96, 8_000),
        (192, 4_000),
        (384, 2_000),
        (768, 400),
        (1536, 80),
        (1536, 80),
        (1536, 80),
        (1024, 80),
    ]
    decoder = [shown[f"decoder.{index}"] for index in range(10)]
    assert decoder == [*encoder[5:7], *encoder[4::-1], (48, 16_000), (1, 16_000), (1, 16_000)]


@pytest.mark.parametrize("name", ["encoder.0", "encoder.6", "latent", "decoder_input", "decoder.1", "decoder.9"])
def test_edits_are_heard_on_every_way(codec: BigCodecCodec, audio_BCN: Tensor, name: str) -> None:
    with torch.no_grad():
        z_BDT = codec.module.encoder(audio_BCN)
        ways = {"encoder": lambda: codec.module.encoder(audio_BCN)}
        ways["decoder"] = lambda: codec.module.decoder(z_BDT, vq=False)
        side = "encoder" if name == "latent" else name.split(".")[0].removesuffix("_input")
        plain, plain_run = ways[side](), codec.run(audio_BCN)
        with attach(codec.module, codec.site(name), lambda x_BTD: -1.5 * x_BTD):
            assert not torch.equal(ways[side](), plain)
            assert not torch.equal(codec.run(audio_BCN), plain_run)
        assert torch.equal(codec.run(audio_BCN), plain_run)


class TestOpening:
    @pytest.mark.parametrize("form", ["bigcodec.pt", "mine.pt", "model.safetensors"])
    @pytest.mark.parametrize("as_folder", [True, False])
    def test_files_and_their_folders(
        self, form: str, as_folder: bool, codec: BigCodecCodec, audio_BCN: Tensor, tmp_path: Path
    ) -> None:
        if form == "bigcodec.pt":
            torch.save(published(codec.module), tmp_path / form)
        elif form == "mine.pt":
            torch.save(codec.state_dict(), tmp_path / form)
        else:
            save_file(codec.state_dict(), tmp_path / form)
        name = f"bigcodec:{tmp_path if as_folder else tmp_path / form}"
        model = open_model(name)
        assert isinstance(model, BigCodecCodec)
        assert (model.name, model.module.config) == (name, SMALL)
        assert torch.equal(model.run(audio_BCN), codec.run(audio_BCN))

    def test_a_folder_with_a_configuration(self, codec: BigCodecCodec, audio_BCN: Tensor, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text(json.dumps({"architecture": "bigcodec"}))
        torch.save(published(codec.module), tmp_path / "bigcodec.pt")
        assert torch.equal(open_model(tmp_path).run(audio_BCN), codec.run(audio_BCN))

    def test_half_precision_is_read_as_float32(self, codec: BigCodecCodec, tmp_path: Path) -> None:
        halves = {part: {k: v.half() for k, v in state.items()} for part, state in published(codec.module).items()}
        torch.save(halves, tmp_path / "bigcodec.pt")
        assert open_model(f"bigcodec:{tmp_path}").dtype == torch.float32

    def test_a_module_that_is_there(self, codec: BigCodecCodec) -> None:
        model = wrap_model(codec.module.train())
        assert isinstance(model, BigCodecCodec)
        assert not model.module.training

    def test_the_published_model_comes_from_its_hub(
        self, codec: BigCodecCodec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        torch.save(published(codec.module), tmp_path / "bigcodec.pt")
        asked = []

        def download(repository: str, only: list[str]) -> Path:
            asked.append((repository, only))
            return tmp_path

        monkeypatch.setattr("hooks.hub.download", download)
        assert open_model("bigcodec:16khz").name == "bigcodec:16khz"
        assert asked == [("Alethia/BigCodec", ["bigcodec.pt"])]

    def test_without_a_network_it_is_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("huggingface_hub", reason="extra all")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "/nonexistent")
        with pytest.raises(ModelError, match="hf:Alethia/BigCodec: ") as caught:
            open_model("bigcodec:16khz")
        assert "\n" not in str(caught.value)

    def test_unknown_names(self) -> None:
        with pytest.raises(ModelError, match=r"unknown model 'bigcodec:24khz'; there are bigcodec:16khz, or bigcodec:"):
            open_model("bigcodec:24khz")

    def test_weights_that_do_not_fit(self, codec: BigCodecCodec, tmp_path: Path) -> None:
        def refused(content: object, message: str) -> None:
            torch.save(content, tmp_path / "model.pt")
            with pytest.raises(ModelError, match=message) as caught:
                open_model(f"bigcodec:{tmp_path}")
            assert "\n" not in str(caught.value)

        no_bias = published(codec.module)
        del no_bias["generator"]["model.0.bias"]
        refused(no_bias, r"not a BigCodec that can be opened .*decoder\.model\.0\.bias")
        refused({"CodecEnc": codec.module.encoder.state_dict()}, "not a BigCodec that can be opened .*generator")
        refused({"CodecEnc": 3, "generator": 4}, "not a BigCodec that can be opened")
        refused({"weight": torch.ones(2)}, "not a BigCodec that can be opened")
        refused([torch.ones(2)], "not a BigCodec that can be opened|holds no tensors")
        not_finite = published(codec.module)
        not_finite["CodecEnc"]["block.0.bias"] = torch.full((2,), torch.nan)
        refused(not_finite, r"encoder\.block\.0\.bias has values that are not finite")

    def test_code_in_a_checkpoint_is_never_run(self, tmp_path: Path) -> None:
        class Trap:
            def __reduce__(self) -> tuple[object, tuple[Path]]:
                return Path.touch, (tmp_path / "sprung",)

        torch.save({"CodecEnc": Trap()}, tmp_path / "bigcodec.pt")
        with pytest.raises(ModelError, match="holds more than tensors"):
            open_model(f"bigcodec:{tmp_path / 'bigcodec.pt'}")
        assert not (tmp_path / "sprung").exists()
