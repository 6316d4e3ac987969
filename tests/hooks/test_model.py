from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hooks import AudioModel, Clip, Codec, ModelError, Site, SiteError, write_clip
from hooks.families.wavtokenizer import WavTokenizerCodec


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv1d(2, 4, 3), nn.Dropout(0.5))
        self.flavour = "sweet"

    def forward(self, audio_BCN: torch.Tensor, gain: float = 1.0) -> torch.Tensor:
        return gain * self.layers(audio_BCN)


@pytest.fixture
def model() -> AudioModel:
    return AudioModel(Net().train(), [Site("conv", "layers.0", "BDT")], sample_rate=8_000, channels=2)


def test_calling_it_is_the_modules_own_forward_in_evaluation_mode(model: AudioModel) -> None:
    audio_BCN = torch.randn(1, 2, 50)
    assert not model.module.training
    assert torch.equal(model(audio_BCN, gain=3.0), 3.0 * model.module.layers[0](audio_BCN))
    assert torch.equal(model.run(audio_BCN), model(audio_BCN))


def test_other_attributes_are_the_modules_own(model: AudioModel) -> None:
    assert model.flavour == "sweet"
    assert model.layers is model.module.layers
    with pytest.raises(AttributeError, match="bitter"):
        _ = model.bitter


def test_other_attributes_are_set_on_the_module(model: AudioModel) -> None:
    model.flavour = "sour"
    assert model.flavour == model.module.flavour == "sour"
    model.name, model.sample_rate, model.note = "mine", 16_000, "ours"
    assert not any(hasattr(model.module, name) for name in ("name", "sample_rate", "note"))
    model.run = len  # type: ignore[method-assign, assignment]
    assert "run" not in vars(model.module)


def test_what_a_module_gives_back_of_itself_is_the_model(model: AudioModel) -> None:
    assert model.to(torch.float64) is model
    assert model.dtype == torch.float64
    assert model.half().float() is model
    assert model.train() is model and model.module.training
    assert model.eval() is model and not model.module.training
    assert model.requires_grad_(False) is model
    assert model.to("meta") is model and model.device == torch.device("meta")


def test_a_modules_own_attributes_of_the_same_name_stay() -> None:
    module = Net()
    module.sample_rate, module.name = 99, "theirs"
    AudioModel(module, name="ours", sample_rate=8_000)
    assert (module.sample_rate, module.name) == (99, "theirs")


def test_it_can_be_copied(model: AudioModel) -> None:
    other = copy.deepcopy(model)
    assert other.module is not model.module
    assert other.sites == model.sites


def test_sites_by_name_and_by_module_path(model: AudioModel) -> None:
    assert model.site("conv").module == "layers.0"
    assert model.site("layers.1") == Site("layers.1", "layers.1")


def test_an_unknown_site_gets_a_hint(model: AudioModel) -> None:
    with pytest.raises(SiteError, match=r"Net has no site 'cnv'; did you mean conv\?"):
        model.site("cnv")
    with pytest.raises(SiteError, match="it has conv"):
        model.site("zzz")
    with pytest.raises(SiteError, match="no named sites"):
        AudioModel(Net()).site("zzz")


def test_prepare_resamples_mixes_and_casts(model: AudioModel, tmp_path: Path) -> None:
    model.module.half()
    clip = Clip(0.1 * torch.randn(1, 16_000), 16_000)
    write_clip(clip, tmp_path / "a.wav", "FLOAT")
    audio_BCN = model.prepare(tmp_path / "a.wav")
    assert audio_BCN.shape == (1, 2, 8_000)
    assert audio_BCN.dtype == torch.float16
    assert torch.equal(audio_BCN, model.prepare(clip))
    assert torch.equal(audio_BCN[:, 0], audio_BCN[:, 1])


def test_bare_samples_are_at_the_models_rate(model: AudioModel) -> None:
    samples = torch.randn(2, 100)
    assert torch.equal(model.prepare(samples)[0], samples)
    assert torch.equal(model.prepare(np.ones(100, np.float64)), torch.ones(1, 2, 100))


def test_a_model_of_unknown_rate_takes_no_audio() -> None:
    with pytest.raises(ModelError, match="call it with your own inputs"):
        AudioModel(Net()).prepare(torch.randn(1, 100))


def test_device_and_dtype_of_a_model_without_parameters() -> None:
    model = AudioModel(nn.ReLU())
    assert (model.device, model.dtype) == (torch.device("cpu"), torch.float32)


def test_resynthesize_is_the_round_trip_as_a_clip(codec: WavTokenizerCodec) -> None:
    clip = Clip(0.1 * torch.randn(1, 1_000), 8_000)
    back = codec.resynthesize(clip)
    assert (back.sample_rate, back.waveform.shape) == (8_000, clip.waveform.shape)
    assert torch.equal(back.waveform, codec.run(clip.waveform[None])[0])


def test_a_codec_has_to_say_how_it_codes() -> None:
    codec = Codec(Net(), sample_rate=8_000, channels=2)
    for call in (codec.encode, codec.decode, codec.run):
        with pytest.raises(TypeError, match="Codec does not define"):
            call(torch.zeros(1, 2, 50))
