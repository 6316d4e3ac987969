from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from hooks import ModelError, attach, capture, open_model
from hooks.families.wavtokenizer import PUBLISHED, WavTokenizerCodec
from hooks.networks.wavtokenizer import WavTokenizer, WavTokenizerConfig


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
        torch.save({"state_dict": codec.state_dict(), "epoch": 3}, tmp_path / "last.ckpt")
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
        with pytest.raises(ModelError, match="holds more than tensors"):
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


class TestPublishedFiles:
    """Checkpoints as the authors' training with Lightning left them, small but with the published strides."""

    SIZES = {  # noqa: RUF012
        "WavTokenizer_small_320_24k_4096.ckpt": ((8, 5, 4, 2), 1280, 75.0),
        "WavTokenizer_small_600_24k_4096.ckpt": ((6, 5, 5, 4), 2400, 40.0),
    }

    @pytest.fixture(params=list(SIZES))
    def file(self, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
        ratios, n_fft, _ = self.SIZES[request.param]
        config = WavTokenizerConfig(
            dimension=16, n_filters=2, ratios=ratios, bins=32, width=32, hidden=48, num_layers=2, n_fft=n_fft
        )
        module = WavTokenizer(config)
        for book in module.quantizer.codebooks():
            book.embed.normal_()
        training = {
            "feature_extractor.encodec.decoder.model.0.conv.conv.weight_g": torch.ones(3, 1, 1),
            "multiperioddisc.discriminators.0.convs.0.weight_g": torch.ones(2, 1, 1, 1),
            "multiresddisc.discriminators.0.emb.weight": torch.ones(4, 2),
            "dac.discriminators.0.convs.0.0.bias": torch.ones(2),
            "dacdiscriminator.discriminator.discriminators.0.convs.0.0.bias": torch.ones(2),
            "melspec_loss.mel_spec.spectrogram.window": torch.ones(8),
        }
        checkpoint = {
            "epoch": 31,
            "global_step": 157_696,
            "pytorch-lightning_version": "1.8.6",
            "state_dict": module.state_dict() | training,
            "loops": {"fit_loop": {"state_dict": {}}},
            "callbacks": {"ModelCheckpoint{'monitor': 'val_loss'}": {"best_model_score": torch.tensor(5.9)}},
            "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"betas": (0.9, 0.9)}]}],
            "lr_schedulers": [{"last_epoch": 1, "lr_lambdas": [{}]}],
            "hparams_name": "kwargs",
            "hyper_parameters": {"sample_rate": 24_000, "initial_learning_rate": 2e-4, "resume": False},
        }
        torch.save(checkpoint, tmp_path / request.param)
        return tmp_path / request.param

    @pytest.mark.parametrize("as_folder", [True, False])
    def test_it_opens_without_a_configuration(self, file: Path, as_folder: bool) -> None:
        model = open_model(f"wavtokenizer:{file.parent if as_folder else file}")
        ratios, n_fft, rate = self.SIZES[file.name]
        assert isinstance(model, WavTokenizerCodec)
        assert (model.module.config.ratios, model.module.config.n_fft) == (ratios, n_fft)
        assert (model.sample_rate, model.frame_rate, model.quantize) == (24_000, rate, True)
        audio_BCN = 0.1 * torch.randn(1, 1, 4_800)
        assert model.encode(audio_BCN).shape == (1, rate * 0.2, 16)
        state = torch.load(file, weights_only=True)["state_dict"]
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())

    def test_the_published_ones_come_from_their_hub(
        self, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = []

        def download(repository: str, only: list[str]) -> Path:
            asked.append((repository, only))
            folder = tmp_path / repository / only[0]
            folder.mkdir(parents=True)
            (folder / only[0]).symlink_to(file)
            return folder

        monkeypatch.setattr("hooks.hub.download", download)
        for name, (repository, published) in PUBLISHED.items():
            open_model(f"wavtokenizer:{name}")
            assert asked.pop() == (repository, [published])
            assert ("600" in name) == ("600" in published)

    def test_without_a_network_it_is_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("huggingface_hub", reason="extra all")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(ModelError, match="hf:novateur/WavTokenizer: ") as caught:
            open_model("wavtokenizer:small-320-24k-4096")
        assert "\n" not in str(caught.value)

    def test_unknown_names(self) -> None:
        with pytest.raises(ModelError, match="unknown model 'wavtokenizer:tiny'; there are wavtokenizer:small-320"):
            open_model("wavtokenizer:tiny")

    def test_a_checkpoint_of_something_else(self, tmp_path: Path) -> None:
        torch.save({"state_dict": {"encoder.weight": torch.ones(2)}}, tmp_path / "x.ckpt")
        with pytest.raises(ModelError, match=r"not a WavTokenizer that can be opened .*head\.istft\.window"):
            open_model(f"wavtokenizer:{tmp_path / 'x.ckpt'}")
