"""Both implementations, reduced in width, with the published strides; see the contract suite for what all share."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hooks import Codec, ModelError, capture, open_model, wrap_model
from tests.hooks.contract.dac import of_transformers, package, save_to_folder

dac = pytest.importorskip("dac", reason="extra dac")
transformers = pytest.importorskip("transformers", reason="extra dac")

NAMES = ("package 24", "package 44", "transformers 24", "transformers 44")
RATES = {"24": 24_000, "44": 44_100}


@cache
def opened(name: str) -> Codec:
    torch.manual_seed(0)
    kind, size = name.split()
    model = wrap_model((package if kind == "package" else of_transformers)(RATES[size], published=False))
    assert isinstance(model, Codec)
    return model


@pytest.fixture(params=NAMES)
def codec(request: pytest.FixtureRequest) -> Codec:
    return opened(request.param)


def noise(samples: int) -> Tensor:
    return 0.3 * torch.randn(2, 1, samples)


@torch.no_grad()
def own_round_trip(codec: Codec, audio_BCN: Tensor, n_quantizers: int | None = None) -> Tensor:
    """The library's own output; transformers' feature extractor fills up to whole frames, its model does not."""
    if codec.name.startswith("dac:"):
        return codec.module(audio_BCN, n_quantizers=n_quantizers)["audio"]
    whole_BCN = nn.functional.pad(audio_BCN, (0, -audio_BCN.shape[-1] % codec.hop_length))
    return codec.module(whole_BCN, n_quantizers).audio_values[:, None, : audio_BCN.shape[-1]]


@pytest.mark.parametrize("frames", [1, 3.3, 20, 20.99])
def test_without_edits_it_is_the_librarys_own_round_trip(codec: Codec, frames: float) -> None:
    samples = int(frames * codec.hop_length)
    audio_BCN = noise(samples)
    output_BCN, own_BCN = codec.run(audio_BCN), own_round_trip(codec, audio_BCN)
    assert output_BCN.shape == audio_BCN.shape
    # stride 5 takes a sample away, which are 8 at the end: only whole frames lack them
    lacks = 8 if codec.sample_rate == 24_000 and frames in (1, 20) else 0
    if frames != 20.99:
        assert own_BCN.shape[-1] == samples - lacks
    have = own_BCN.shape[-1]
    assert torch.equal(output_BCN[..., :have], own_BCN)
    assert torch.equal(output_BCN[..., have:], torch.zeros(2, 1, samples - have))


def test_fewer_codebooks_are_the_librarys_own_round_trip(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    audio_BCN = noise(4_000)
    whole = codec.run(audio_BCN)
    monkeypatch.setattr(codec, "n_quantizers", 2)
    low = codec.run(audio_BCN)
    assert torch.equal(low, own_round_trip(codec, audio_BCN, 2))
    assert not torch.equal(low, whole)
    for wrong in (0, 5):
        monkeypatch.setattr(codec, "n_quantizers", wrong)
        with pytest.raises(ModelError, match=f"n_quantizers is {wrong}, and there are 4 codebooks"):
            codec.run(audio_BCN)


@pytest.mark.parametrize("size", RATES)
def test_both_implementations_are_one_network(size: str) -> None:
    """With the same weights; they order layers alike."""
    ours, theirs = opened(f"package {size}"), wrap_model(of_transformers(RATES[size], published=False))
    audio_BCN = noise(6_000)
    wanted = ours.run(audio_BCN)  # also refreshes what weight norm makes of its parameters
    with torch.no_grad():
        for part in ("encoder", "quantizer", "decoder"):
            pairs = zip(leaves(ours.module, part), leaves(theirs.module, part), strict=True)
            for one, other in pairs:
                for name in ("weight", "bias", "alpha"):
                    if hasattr(one, name):
                        getattr(other, name).copy_(getattr(one, name))
    # float32 rounding: the weights were normalised once and for all
    torch.testing.assert_close(theirs.run(audio_BCN), wanted, atol=1e-5 * float(wanted.abs().max()), rtol=1e-4)
    assert list(ours.sites) == list(theirs.sites)
    for name, site in ours.sites.items():
        same = theirs.sites[name]
        assert (site.width, site.frame_rate) == (same.width, same.frame_rate), name


def leaves(module: nn.Module, part: str) -> list[nn.Module]:
    kinds = (nn.Conv1d, nn.ConvTranspose1d, nn.Embedding)
    return [one for one in module.get_submodule(part).modules() if isinstance(one, kinds) or hasattr(one, "alpha")]


def test_sites_of_the_published_sizes() -> None:
    with torch.device("meta"):
        low = wrap_model(package(24_000, published=True))
        high = wrap_model(
            dac.DAC(encoder_rates=[2, 4, 8, 8], latent_dim=128, decoder_rates=[8, 8, 4, 2], n_codebooks=18)
        )
    widths = [1024, 1536, 768, 384, 192, 96, 96, 1, 1]
    rates = [75.0, 75.0, 600.0, 3_000.0, 12_000.0, 24_000.0, 24_000.0, 24_000.0, 24_000.0]
    behind = [low.sites[name] for name in ("decoder_input", *(f"decoder.{index}" for index in range(8)))]
    assert [site.width for site in behind] == widths
    assert [site.frame_rate for site in behind] == rates
    ahead = [high.sites[name] for name in (*(f"encoder.{index}" for index in range(7)), "latent")]
    assert [site.width for site in ahead] == [64, 128, 256, 512, 1024, 1024, 128, 128]
    assert ahead[-1].frame_rate == pytest.approx(86.13, abs=0.005)
    # 74.7 million, as counted for the published 24 kHz model, whose weight norm has a number for each channel more
    assert sum(one.numel() for one in low.module.parameters()) == pytest.approx(74.7e6, rel=1e-3)


@torch.no_grad()
def test_past_the_quantiser(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    audio_BCN = noise(5_000)
    latent_BTD = codec.encode(audio_BCN)
    assert latent_BTD.shape == (2, -(-5_000 // codec.hop_length), 128)
    back_BCN = codec.decode(latent_BTD)
    assert back_BCN.shape == (2, 1, latent_BTD.shape[1] * codec.hop_length)
    quantised = codec.run(audio_BCN)
    monkeypatch.setattr(codec, "quantize", False)
    plain = codec.run(audio_BCN)
    assert torch.equal(plain, back_BCN[..., :5_000])
    assert not torch.equal(plain, quantised)
    seen = next(capture(codec, [audio_BCN[0]], ["latent", "decoder_input"])).activations
    assert torch.equal(seen["latent"], seen["decoder_input"])


def test_a_cut_is_not_heard_behind_the_context(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    # through the codebooks, rounding may now and then choose another code
    monkeypatch.setattr(codec, "quantize", False)
    assert codec.sample_rate is not None
    context = -(-int(codec.context_s * codec.sample_rate) // codec.hop_length) * codec.hop_length
    audio_BCN = noise(3 * context)
    whole, part = codec.run(audio_BCN), codec.run(audio_BCN[..., context:])
    torch.testing.assert_close(
        part[..., context:], whole[..., 2 * context :], atol=1e-5 * float(whole.abs().max()), rtol=0
    )


@pytest.mark.parametrize("size", ["16khz", "24khz", "44khz", "44khz-16kbps"])
def test_by_name_it_is_the_packages_own_download(size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def download(**wanted: str) -> Path:
        asked.update(wanted)
        return tmp_path / "weights.pth"

    model = opened("package 44")
    model.module.save(tmp_path / "weights.pth", package=False)
    monkeypatch.setattr(dac.utils, "download", download)
    again = open_model(f"dac:{size}")
    kind, _, bit_rate = size.partition("-")
    assert asked == {"model_type": kind, "model_bitrate": bit_rate or "8kbps"}
    assert again.name == f"dac:{size}"
    assert torch.equal(again.run(audio := noise(2_000)), model.run(audio))


def test_without_a_network_it_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = pytest.importorskip("requests", reason="extra dac")

    def download(**wanted: str) -> Path:
        raise requests.exceptions.ConnectionError("Max retries exceeded with url:\n/descriptinc (no route to host)")

    monkeypatch.setattr(dac.utils, "download", download)
    with pytest.raises(ModelError, match="dac:24khz: the weights could not be downloaded .*dac:/path") as caught:
        open_model("dac:24khz")
    assert "\n" not in str(caught.value)


class TestCheckpoints:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        opened("package 24").module.save(tmp_path / "weights.pth", package=False)
        return tmp_path / "weights.pth"

    def test_it_is_what_the_package_loads(self, file: Path) -> None:
        audio_BCN = noise(2_000)
        with torch.no_grad():
            own = dac.DAC.load(file).eval()(audio_BCN)["audio"]
        model = open_model(f"dac:{file}")
        assert torch.equal(model.run(audio_BCN), own)
        assert model.sample_rate == 24_000

    def test_a_folder_of_save_to_folder(self, tmp_path: Path) -> None:
        name = save_to_folder(opened("package 24").module, tmp_path / "best")
        assert open_model(name).sample_rate == open_model(f"{name}/dac").sample_rate == 24_000
        with pytest.raises(ModelError, match="no dac/weights.pth"):
            open_model(f"dac:{tmp_path}")

    def test_names_that_are_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(
            ModelError, match="there are dac:16khz, dac:24khz, dac:44khz, dac:44khz-16kbps, or dac: and"
        ):
            open_model("dac:48khz")
        with pytest.raises(ModelError, match="unknown model"):
            open_model(f"dac:{tmp_path / 'no.pth'}")

    def test_a_package_is_not_opened(self, tmp_path: Path) -> None:
        with torch.package.PackageExporter(tmp_path / "package.pth") as exporter:
            exporter.save_pickle("DAC", "DAC.pth", {"any": "thing"})
        with pytest.raises(ModelError, match="brings code of its own and is not opened; open the weights.pth"):
            open_model(f"dac:{tmp_path / 'package.pth'}")

    def test_code_is_not_run(self, file: Path) -> None:
        content = torch.load(file, weights_only=True)
        torch.save(content | {"more": Evil(file.with_name("trace"))}, file)
        with pytest.raises(ModelError, match="holds more than tensors"):
            open_model(f"dac:{file}")
        assert not file.with_name("trace").exists()

    @pytest.mark.parametrize(
        ("damage", "line"),
        [
            ("gone", "1 weights are not in its file, among them decoder.model.0.bias"),
            ("shape", "not a DAC that can be opened .*size mismatch"),
            ("nan", "decoder.model.0.bias has values that are not finite"),
            ("no metadata", "not a DAC that can be opened"),
            ("kwargs", "not a DAC that can be opened"),
            ("list", "not a DAC that can be opened"),
            ("cut", "cut short or damaged"),
        ],
    )
    def test_damage_is_one_line(self, file: Path, damage: str, line: str) -> None:
        content: Any = torch.load(file, weights_only=True)
        weights, name = content["state_dict"], "decoder.model.0.bias"
        match damage:
            case "gone":
                del weights[name]
            case "shape":
                weights[name] = weights[name][1:]
            case "nan":
                weights[name][3] = torch.nan
            case "no metadata":
                del content["metadata"]
            case "kwargs":
                content["metadata"]["kwargs"]["encoder_rates"] = "four"
            case "list":
                content = [1, 2]
        torch.save(content, file)
        if damage == "cut":
            file.write_bytes(file.read_bytes()[:-2_000])
        with pytest.raises(ModelError, match=line) as caught:
            open_model(f"dac:{file}")
        assert "\n" not in str(caught.value)


class Evil:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


class TestFolders:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        opened("transformers 24").module.save_pretrained(tmp_path / "model")
        return tmp_path / "model"

    def test_what_save_pretrained_wrote(self, folder: Path) -> None:
        model = open_model(folder)
        assert torch.equal(model.run(audio := noise(2_000)), opened("transformers 24").run(audio))
        assert (model.name, model.sample_rate) == (str(folder), 24_000)

    @pytest.mark.parametrize(
        ("damage", "line"),
        [
            ("gone", "1 weights are not in its file, among them decoder.conv1.bias"),
            ("shape", "do not belong together"),
            ("nan", "decoder.conv1.bias has values that are not finite"),
            ("junk", "holds something else"),
            ("no file", "no file named model.safetensors"),
        ],
    )
    def test_damage_is_one_line(self, folder: Path, damage: str, line: str) -> None:
        file, name = folder / "model.safetensors", "decoder.conv1.bias"
        weights = load_file(file)
        match damage:
            case "gone":
                del weights[name]
            case "shape":
                weights[name] = weights[name][1:].clone()
            case "nan":
                weights[name][3] = torch.nan
        save_file(weights, file, {"format": "pt"})
        if damage == "junk":
            file.write_bytes(b"junk")
        elif damage == "no file":
            file.unlink()
        with pytest.raises(ModelError, match=line) as caught:
            open_model(folder)
        assert "\n" not in str(caught.value)
