"""SpeechTokenizer with random weights, small but with the published strides, rates and kinds of layers."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from hooks import Clip, ModelError, attach, capture, open_model, wrap_model
from hooks.errors import MissingExtraError
from hooks.families.speechtokenizer import SpeechTokenizerCodec
from tests.hooks.contract.speechtokenizer import SMALL, build, save

speechtokenizer = pytest.importorskip("speechtokenizer", reason="extra speechtokenizer")


@cache
def opened(activation: str) -> SpeechTokenizerCodec:
    torch.manual_seed(0)
    model = wrap_model(build(SMALL | {"activation": activation}))
    assert isinstance(model, SpeechTokenizerCodec)
    return model


@pytest.fixture(params=["ELU", "Snake"])
def any_codec(request: pytest.FixtureRequest) -> SpeechTokenizerCodec:
    return opened(request.param)


@pytest.fixture
def codec() -> SpeechTokenizerCodec:
    return opened("ELU")


def noise(samples: int, rows: int = 2) -> Tensor:
    return torch.randn(rows, 1, samples, generator=torch.Generator().manual_seed(1)) * torch.linspace(
        0.05, 0.5, samples
    )


@torch.no_grad()
def own_round_trip(codec: SpeechTokenizerCodec, audio_BCN: Tensor, **options: Any) -> Tensor:
    return codec.module(audio_BCN, **options)[0][..., : audio_BCN.shape[-1]]


# --- the round trip ---


@pytest.mark.parametrize("samples", [1, 319, 320, 321, 5_000])
def test_without_edits_it_is_the_librarys_own_round_trip(any_codec: SpeechTokenizerCodec, samples: int) -> None:
    audio_BCN = noise(samples)
    output_BCN = any_codec.run(audio_BCN)
    assert output_BCN.shape == audio_BCN.shape
    assert torch.equal(output_BCN, own_round_trip(any_codec, audio_BCN))


@torch.no_grad()
def test_its_codes_give_the_same_sound(any_codec: SpeechTokenizerCodec) -> None:
    audio_BCN = noise(4_800)
    own = any_codec.module.decode(any_codec.module.encode(audio_BCN))
    assert torch.equal(any_codec.run(audio_BCN), own)


def test_fewer_codebooks(codec: SpeechTokenizerCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    audio_BCN = noise(4_800)
    monkeypatch.setattr(codec, "num_quantizers", 1)
    one = codec.run(audio_BCN)
    assert torch.equal(one, own_round_trip(codec, audio_BCN, n_q=1))
    assert not torch.equal(one, own_round_trip(codec, audio_BCN))
    seen = next(capture(codec, [audio_BCN[0]], ["semantic", "decoder_input"])).activations
    assert torch.equal(seen["semantic"], seen["decoder_input"])


@torch.no_grad()
def test_past_the_quantiser(codec: SpeechTokenizerCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    audio_BCN = noise(5_000)
    latents_BTD = codec.encode(audio_BCN)
    assert latents_BTD.shape == (2, 16, 32)
    monkeypatch.setattr(codec, "quantize", False)
    assert torch.equal(codec.run(audio_BCN), codec.decode(latents_BTD)[..., :5_000])
    names = ["latent", "decoder_input"]
    seen = next(capture(codec, [audio_BCN[0]], names)).activations
    assert torch.equal(seen["latent"], seen["decoder_input"])


def test_using_it_does_not_train_its_codebooks() -> None:
    """The library's modules are in training mode when it has built or loaded them: means would move, codes expire."""
    module = build(SMALL).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    model = wrap_model(module)
    model.run(noise(4_800))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    module.train()
    module(noise(4_800))
    assert not all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_resynthesize_takes_any_rate_and_channels(codec: SpeechTokenizerCodec) -> None:
    back = codec.resynthesize(Clip(0.1 * torch.randn(2, 12_000), 24_000))
    assert (back.sample_rate, back.waveform.shape) == (16_000, (1, 8_000))


# --- sites ---


def test_every_site_is_as_declared(any_codec: SpeechTokenizerCodec) -> None:
    codec = any_codec
    assert list(codec.sites) == [
        *(f"encoder.{index}" for index in range(16)),
        "latent",
        "semantic",
        "decoder_input",
        *(f"decoder.{index}" for index in range(16)),
    ]
    audio_BCN = noise(4_800)
    seen = next(capture(codec, [audio_BCN[0]], list(codec.sites))).activations
    for name, x_BTD in seen.items():
        assert x_BTD.shape[1] == 4_800 / 16_000 * (codec.sites[name].frame_rate or 0), name
    assert [codec.sites[name].frame_rate for name in ("encoder.0", "latent", "semantic", "decoder.15")] == [
        16_000,
        50,
        50,
        16_000,
    ]
    assert (codec.frame_rate, codec.hop_length) == (50.0, 320)
    assert torch.equal(seen["latent"], seen["encoder.15"])


@torch.no_grad()
def test_semantic_is_the_first_codebooks_output(codec: SpeechTokenizerCodec) -> None:
    audio_BCN = noise(4_800, rows=1)
    seen = next(capture(codec, [audio_BCN[0]], ["semantic", "decoder_input"])).activations
    (own_BDT,) = codec.module.forward_feature(audio_BCN, [0])
    assert torch.equal(seen["semantic"].transpose(1, 2), own_BDT)
    every_BDT = codec.module.forward_feature(audio_BCN)
    # the library sums from the first to the last, as here
    assert torch.equal(seen["decoder_input"].transpose(1, 2), sum(every_BDT, torch.zeros(())))


@torch.no_grad()
def test_the_later_codebooks_undo_part_of_an_edit_at_the_first(codec: SpeechTokenizerCodec) -> None:
    audio_BCN = noise(4_800, rows=1)
    shift_D = torch.randn(32, generator=torch.Generator().manual_seed(2)) * float(codec.encode(audio_BCN).std())
    moved: dict[str, Tensor] = {}
    plain = next(capture(codec, [audio_BCN[0]], ["decoder_input"])).activations["decoder_input"]
    with attach(codec.module, codec.site("semantic"), lambda x_BTD: x_BTD + shift_D):
        for count in (1, 8):
            codec.num_quantizers = count
            moved |= {str(count): next(capture(codec, [audio_BCN[0]], ["decoder_input"])).activations["decoder_input"]}
    codec.num_quantizers = 1
    first = next(capture(codec, [audio_BCN[0]], ["decoder_input"])).activations["decoder_input"]
    codec.num_quantizers = None
    torch.testing.assert_close(moved["1"], first + shift_D)
    assert (moved["8"] - plain).norm() < (moved["1"] - first).norm()


# --- opening ---


class TestOpening:
    @pytest.fixture
    def folder(self, codec: SpeechTokenizerCodec, tmp_path: Path) -> Iterator[Path]:
        save(SMALL, codec.module, tmp_path / "model")
        return tmp_path / "model"

    def test_by_folder_and_by_file(self, folder: Path, codec: SpeechTokenizerCodec) -> None:
        audio_BCN = noise(1_000)
        names = [folder, str(folder), f"speechtokenizer:{folder}", f"speechtokenizer:{folder / 'SpeechTokenizer.pt'}"]
        for name in names:
            model = open_model(name)
            assert (type(model), model.name) == (SpeechTokenizerCodec, str(name))
            assert not model.module.training
            assert torch.equal(model.run(audio_BCN), codec.run(audio_BCN))

    def test_what_the_library_loads_is_the_same(self, folder: Path, codec: SpeechTokenizerCodec) -> None:
        own = speechtokenizer.SpeechTokenizer.load_from_checkpoint(
            str(folder / "config.json"), str(folder / "SpeechTokenizer.pt")
        )
        assert torch.equal(wrap_model(own).run(noise(1_000)), codec.run(noise(1_000)))

    def test_safetensors_are_read_too(self, folder: Path, codec: SpeechTokenizerCodec) -> None:
        (folder / "SpeechTokenizer.pt").unlink()
        save_file(codec.module.state_dict(), folder / "model.safetensors")
        assert torch.equal(open_model(folder).run(noise(1_000)), codec.run(noise(1_000)))

    @pytest.mark.parametrize(
        ("release", "repository", "file"),
        [
            ("hubert_avg", "fnlp/SpeechTokenizer", "speechtokenizer_hubert_avg/SpeechTokenizer.pt"),
            ("snake", "fnlp/AnyGPT-speech-modules", "speechtokenizer/ckpt.dev"),
        ],
    )
    def test_a_release_from_the_hub(
        self, release: str, repository: str, file: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: dict[str, Any] = {}

        def snapshot(name: str, **options: Any) -> str:
            asked.update(options, name=name)
            (tmp_path / file).parent.mkdir()
            (folder / "config.json").rename((tmp_path / file).with_name("config.json"))
            (folder / "SpeechTokenizer.pt").rename(tmp_path / file)
            return str(tmp_path)

        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
        assert open_model(f"speechtokenizer:{release}").name == f"speechtokenizer:{release}"
        # a repository may hold other models, some of them large
        assert (asked["name"], asked["allow_patterns"]) == (repository, [f"{Path(file).parent}/*"])

    def test_offline_is_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def offline(*args: object, **options: object) -> None:
            raise OSError("no network")

        monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
        with pytest.raises(ModelError, match=r"hf:fnlp/SpeechTokenizer: could not be downloaded \(no network\)"):
            open_model("speechtokenizer:hubert_avg")

    @pytest.mark.parametrize("name", ["speechtokenizer:whatever", "speechtokenizer:/no/such/SpeechTokenizer.pt"])
    def test_unknown_names(self, name: str) -> None:
        with pytest.raises(ModelError, match=r"no such file or folder, .*speechtokenizer:hubert_avg"):
            open_model(name)

    def test_without_the_package(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "speechtokenizer", None)
        with pytest.raises(MissingExtraError, match=r"pip install 'audiosteer\[speechtokenizer\]'"):
            open_model(folder)

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            ("no weights", "there are no weights"),
            ("junk", "neither a file of torch nor safetensors"),
            ("code", "holds more than tensors"),
            ("not finite", "not finite"),
            ("one gone", "Missing key"),
            ("other width", "size mismatch"),
            ("no strides", "are not supported"),
            ("bad strides", "not a SpeechTokenizer that can be opened"),
            ("bad activation", "has no attribute 'Colour'"),
        ],
    )
    def test_damage_is_one_line(self, damage: str, message: str, folder: Path) -> None:
        weights, config = folder / "SpeechTokenizer.pt", dict(SMALL)
        state = torch.load(weights, weights_only=True)
        if damage == "no weights":
            weights.unlink()
        elif damage == "junk":
            weights.write_bytes(b"junk")
        elif damage == "code":
            torch.save({"state_dict": state, "then": print}, weights)
        elif damage == "not finite":
            state["transform.bias"][0] = float("inf")
            torch.save(state, weights)
        elif damage == "one gone":
            del state["transform.bias"]
            torch.save(state, weights)
        elif damage == "other width":
            config["n_filters"] = 8
        elif damage == "no strides":
            del config["strides"]
        elif damage == "bad strides":
            config["strides"] = "8542"
        else:
            config["activation"] = "Colour"
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(ModelError, match=message) as caught:
            open_model(folder)
        assert "\n" not in str(caught.value)
        assert str(folder) in str(caught.value)

    def test_a_checkpoint_without_its_configuration(self, folder: Path) -> None:
        (folder / "config.json").unlink()
        with pytest.raises(ModelError, match=r"config\.json"):
            open_model(f"speechtokenizer:{folder / 'SpeechTokenizer.pt'}")
