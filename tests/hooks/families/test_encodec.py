"""Both implementations at the published configurations, with random weights."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hooks import Clip, Codec, ModelError, at_time, attach, capture, open_model, wrap_model
from hooks.families.encodec import EncodecPackage
from hooks.timing import current_time

encodec = pytest.importorskip("encodec", reason="extra encodec")
transformers = pytest.importorskip("transformers", reason="extra encodec")

CONFIG_48KHZ = {
    "target_bandwidths": [3.0, 6.0, 12.0, 24.0],
    "sampling_rate": 48_000,
    "audio_channels": 2,
    "normalize": True,
    "chunk_length_s": 1.0,
    "overlap": 0.01,
    "norm_type": "time_group_norm",
    "use_causal_conv": False,
}


NAMES = ("package 24", "package 48", "transformers 24", "transformers 48")


def build(name: str) -> nn.Module:
    if name == "package 24":
        return encodec.EncodecModel.encodec_model_24khz(pretrained=False)
    if name == "package 48":
        return encodec.EncodecModel.encodec_model_48khz(pretrained=False)
    # the package has no other sizes than the published ones; here a quarter of the channels does
    config = transformers.EncodecConfig(num_filters=8, **(CONFIG_48KHZ if name.endswith("48") else {}))
    return transformers.EncodecModel(config).eval()


@torch.no_grad()
def fill_codebooks(module: nn.Module, channels: int) -> None:
    """Random codebooks of the latent's size: both libraries start them at zero, so that every input gives silence."""
    spread = module.get_submodule("encoder")(torch.randn(1, channels, 9_600)).std()
    for book in module.modules():
        if hasattr(book, "embed_avg"):
            book.embed.normal_(0, float(spread))  # type: ignore[operator, union-attr]
            book.inited.fill_(1)  # type: ignore[operator, union-attr]


@cache
def opened(name: str) -> Codec:
    torch.manual_seed(0)
    model = wrap_model(build(name))
    assert isinstance(model, Codec)
    fill_codebooks(model.module, model.channels)
    return model


@pytest.fixture(params=NAMES)
def codec(request: pytest.FixtureRequest) -> Codec:
    return opened(request.param)


@pytest.fixture(params=NAMES[::2])
def codec_24khz(request: pytest.FixtureRequest) -> Codec:
    return opened(request.param)


@pytest.fixture(params=NAMES[1::2])
def codec_48khz(request: pytest.FixtureRequest) -> Codec:
    return opened(request.param)


def noise(codec: Codec, samples: int) -> Tensor:
    """[2, C, samples]; of several levels, since the 48 kHz models divide by the level of each second."""
    level_N = torch.linspace(0.05, 0.5, samples)
    return torch.randn(2, codec.channels, samples) * level_N


def own_round_trip(codec: Codec, audio_BCN: Tensor) -> Tensor:
    with torch.no_grad():
        output = codec.module(audio_BCN)
    return output if isinstance(output, Tensor) else output.audio_values[..., : audio_BCN.shape[-1]]


def test_without_edits_it_is_the_librarys_own_round_trip(codec: Codec) -> None:
    assert codec.sample_rate is not None
    # 1.01 s: the second chunk of the 48 kHz models has three frames only
    for seconds in (0.7001, 1.01 if codec.sample_rate == 48_000 else 0.3):
        audio_BCN = noise(codec, int(seconds * codec.sample_rate))
        output_BCN = codec.run(audio_BCN)
        assert output_BCN.shape == audio_BCN.shape
        assert torch.equal(output_BCN, own_round_trip(codec, audio_BCN))


def test_a_higher_bandwidth_is_the_librarys_own_round_trip(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    audio_BCN = noise(codec, 12_000)
    if isinstance(codec, EncodecPackage):
        lowest = codec.module.target_bandwidths[0]
        monkeypatch.setattr(codec.module, "bandwidth", 12.0)
        own = own_round_trip(codec, audio_BCN)
        high = codec.run(audio_BCN)
        monkeypatch.setattr(codec.module, "bandwidth", lowest)
    else:
        monkeypatch.setattr(codec, "bandwidth", 12.0)
        with torch.no_grad():
            own = codec.module(audio_BCN, bandwidth=12.0).audio_values
        high = codec.run(audio_BCN)
        monkeypatch.setattr(codec, "bandwidth", None)
    assert torch.equal(high, own)
    assert not torch.equal(high, codec.run(audio_BCN))


def test_an_unknown_bandwidth(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    if isinstance(codec, EncodecPackage):
        with pytest.raises(ValueError, match="doesn't support the bandwidth"):  # its own word
            codec.set_target_bandwidth(7.0)
        return
    monkeypatch.setattr(codec, "bandwidth", 7.0)
    with pytest.raises(ModelError, match=r"no bandwidth 7.0; choose one of .*12.0, 24.0"):
        codec.run(noise(codec, 1_200))


def test_every_site_is_as_declared(codec: Codec) -> None:
    names = list(codec.sites)
    assert names == [
        *(f"encoder.{index}" for index in range(16)),
        "latent",
        "decoder_input",
        *(f"decoder.{index}" for index in range(16)),
    ]
    # less than a second, so that the 48 kHz models make one chunk of it
    samples = 19_200
    audio_BCN = noise(codec, samples)
    seen = next(capture(codec, [audio_BCN[0]], names)).activations
    for name, x_BTD in seen.items():
        site = codec.sites[name]
        site.measured(x_BTD)
        assert site.frame_rate is not None
        assert codec.sample_rate is not None
        assert x_BTD.shape[:2] == (1, samples * site.frame_rate / codec.sample_rate), name
    assert (codec.sites["latent"].width, codec.frame_rate) == (128, codec.sites["latent"].frame_rate)
    assert codec.frame_rate == {24_000: 75.0, 48_000: 150.0}[codec.sample_rate or 0]
    assert torch.equal(seen["latent"], seen["encoder.15"])
    filters = getattr(getattr(codec.module, "config", None), "num_filters", 32)
    assert seen["decoder.0"].shape[2] == 16 * filters
    assert seen["decoder.15"].shape[2] == codec.channels


@pytest.mark.parametrize("name", ["encoder.4", "latent", "decoder_input", "decoder.7"])
def test_edits_are_heard(codec: Codec, name: str) -> None:
    audio_BCN = noise(codec, 9_600)
    plain = codec.run(audio_BCN)
    with attach(codec.module, codec.site(name), lambda x_BTD: x_BTD + x_BTD.std() * torch.randn(x_BTD.shape[2])):
        assert not torch.equal(codec.run(audio_BCN), plain)
    assert torch.equal(codec.run(audio_BCN), plain)


def test_chunks_know_their_time(codec_48khz: Codec) -> None:
    codec = codec_48khz
    times: list[tuple[str, float | None, int]] = []
    sites = [codec.site("latent"), codec.site("decoder_input")]
    assert [site.chunk_s for site in sites] == [0.99, 0.99]
    audio_BCN = noise(codec, 96_000)[:1]
    with (
        attach(codec.module, sites[0], lambda x_BTD: times.append(("latent", current_time(), x_BTD.shape[1]))),
        attach(codec.module, sites[1], lambda x_BTD: times.append(("decoder_input", current_time(), x_BTD.shape[1]))),
    ):
        codec.run(audio_BCN)
        with at_time(10.0):
            codec.run(audio_BCN[..., :48_000])
    for name in ("latent", "decoder_input"):
        seconds, frames = zip(*((time, frames) for site, time, frames in times if site == name), strict=True)
        assert seconds == pytest.approx((0.0, 0.99, 1.98, 10.0, 10.99))
        assert frames == (150, 150, 3, 150, 2)


def test_a_24khz_model_takes_a_sound_whole(codec_24khz: Codec) -> None:
    codec, times = codec_24khz, []
    with attach(codec.module, codec.site("latent"), lambda x_BTD: times.append(current_time())):
        codec.run(noise(codec, 36_000))
    assert times == [None]


@torch.no_grad()
def test_past_the_quantiser(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    audio_BCN = noise(codec, 24_000)
    monkeypatch.setattr(codec, "quantize", False)
    plain = codec.run(audio_BCN)
    seen = next(capture(codec, [audio_BCN[0]], ["latent", "decoder_input"])).activations
    assert plain.shape == audio_BCN.shape
    assert torch.equal(seen["latent"], seen["decoder_input"])
    if codec.sample_rate == 24_000:
        assert torch.equal(plain, codec.decode(codec.encode(audio_BCN))[..., :24_000])
        return
    # twice as loud in is twice as loud out, to float32 rounding and the 1e-8 that the libraries add to the level
    torch.testing.assert_close(codec.run(2 * audio_BCN), 2 * plain, atol=1e-5, rtol=1e-4)


def test_a_latent_without_its_levels_is_refused(codec_48khz: Codec) -> None:
    for call in (codec_48khz.encode, codec_48khz.decode):
        with pytest.raises(ModelError, match="use run or resynthesize"):
            call(torch.zeros(1, 2, 480))


def test_resynthesize_takes_any_rate_and_channels(codec: Codec) -> None:
    back = codec.resynthesize(Clip(0.1 * torch.randn(1, 8_000), 16_000))
    assert back.sample_rate == codec.sample_rate
    assert back.waveform.shape == (codec.channels, (codec.sample_rate or 0) // 2)


class TestFolders:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        config = transformers.EncodecConfig(num_filters=4, hidden_size=8, codebook_dim=8, codebook_size=16)
        module = transformers.EncodecModel(config)
        fill_codebooks(module, 1)
        module.save_pretrained(tmp_path / "model")
        return tmp_path / "model"

    def test_what_save_pretrained_wrote(self, folder: Path) -> None:
        model = open_model(folder)
        audio_BCN = torch.randn(1, 1, 3_000)
        with torch.no_grad():
            own = transformers.EncodecModel.from_pretrained(folder)(audio_BCN).audio_values
        assert torch.equal(model.run(audio_BCN), own[..., :3_000])
        assert model.name == str(folder)

    def test_missing_weights_are_not_made_up(self, folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        gone = next(name for name in state if name.startswith("decoder."))
        del state[gone]
        save_file(state, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(ModelError, match="weights are not in its file, among them decoder"):
            open_model(folder)

    @pytest.mark.parametrize("damage", ["junk", "no file", "other shape"])
    def test_damaged_folders_are_one_line(self, folder: Path, damage: str) -> None:
        weights, config = folder / "model.safetensors", folder / "config.json"
        if damage == "junk":
            weights.write_bytes(b"junk")
        elif damage == "no file":
            weights.unlink()
        else:
            config.write_text(config.read_text().replace('"hidden_size": 8', '"hidden_size": 12'))
        with pytest.raises(ModelError) as caught:
            open_model(folder)
        assert "\n" not in str(caught.value)
