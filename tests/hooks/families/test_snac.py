"""Reduced in width, with the published strides and windows; the contract suite has what all families share."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hooks import Codec, ModelError, capture, open_model, rows_at, wrap_model
from tests.hooks.contract.snac import config_of, save

snac = pytest.importorskip("snac", reason="extra snac")


@cache
def opened(rate: int, noise: bool) -> Codec:
    torch.manual_seed(0)
    model = wrap_model(snac.SNAC(**config_of(rate, published=False), noise=noise))
    assert isinstance(model, Codec)
    return model


@pytest.fixture(params=[24_000, 32_000])
def silent(request: pytest.FixtureRequest) -> Codec:
    """A model without noise in its decoder."""
    return opened(request.param, noise=False)


@pytest.fixture(params=[24_000, 32_000])
def noisy(request: pytest.FixtureRequest) -> Codec:
    return opened(request.param, noise=True)


def sound(samples: int, rows: int = 2) -> Tensor:
    return 0.3 * torch.randn(rows, 1, samples)


@pytest.mark.parametrize("samples", [1, 511, 9_000, 12_288])
def test_without_edits_it_is_the_librarys_own_round_trip(silent: Codec, samples: int) -> None:
    audio_BCN = sound(samples)
    output_BCN = silent.run(audio_BCN)
    assert output_BCN.shape == audio_BCN.shape
    with torch.no_grad():
        assert torch.equal(output_BCN, silent.module(audio_BCN)[0])


class TestNoise:
    def test_it_is_the_same_at_every_call_and_in_every_row(self, noisy: Codec) -> None:
        audio_BCN = sound(5_000, rows=1).expand(2, -1, -1)
        output_BCN = noisy.run(audio_BCN)
        assert torch.equal(output_BCN, noisy.run(audio_BCN))
        # float32 rounding only: each row has the same noise
        torch.testing.assert_close(output_BCN[0], output_BCN[1], atol=1e-5, rtol=1e-4)
        with torch.no_grad():
            own = [noisy.module(audio_BCN)[0] for _ in range(2)]
            assert not torch.equal(*own)
            assert not torch.allclose(own[0][0], own[0][1], atol=1e-3)

    def test_it_is_the_librarys_own_but_for_the_numbers_drawn(
        self, noisy: Codec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        audio_BCN = sound(5_000)
        output_BCN = noisy.run(audio_BCN)
        drawn, widths = torch.randn, iter([32, 16, 8, 4])  # of the four blocks

        def draw(size: tuple[int, ...], **_: Any) -> Tensor:
            return drawn(size[2], generator=torch.Generator().manual_seed(next(widths)))

        with torch.no_grad(), monkeypatch.context() as patched:
            patched.setattr(torch, "randn", draw)
            own = noisy.module(audio_BCN)[0]
        assert next(widths, None) is None
        torch.testing.assert_close(output_BCN, own, atol=1e-6, rtol=1e-5)

    def test_rows_of_different_times(self, noisy: Codec) -> None:
        audio_BCN = sound(3_000, rows=3)
        with rows_at([(0.0, 9.0), (2.0, 9.0), (0.0, 9.0)]):
            output_BCN = noisy.run(audio_BCN)
        torch.testing.assert_close(output_BCN, noisy.run(audio_BCN), atol=1e-5, rtol=1e-4)

    def test_the_module_is_left_as_it_was(self, noisy: Codec) -> None:
        noisy.run(sound(3_000))
        assert not any(part._forward_hooks or part._forward_pre_hooks for part in noisy.module.modules())


@torch.no_grad()
def test_past_the_quantiser(noisy: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    audio_BCN = sound(5_000)
    latent_BTD = noisy.encode(audio_BCN)
    window = {24_000: 4, 32_000: 32}[noisy.sample_rate or 0]
    assert latent_BTD.shape[1] == -(-5_000 // (window * noisy.hop_length)) * window
    back_BCN = noisy.decode(latent_BTD)
    assert back_BCN.shape == (2, 1, latent_BTD.shape[1] * noisy.hop_length)
    quantised = noisy.run(audio_BCN)
    monkeypatch.setattr(noisy, "quantize", False)
    assert torch.equal(noisy.run(audio_BCN), back_BCN[..., :5_000])
    assert not torch.equal(noisy.run(audio_BCN), quantised)
    seen = next(capture(noisy, [audio_BCN[0]], ["latent", "decoder_input"])).activations
    assert torch.equal(seen["latent"], seen["decoder_input"])


def test_what_fills_up_the_last_window_is_no_sound(silent: Codec) -> None:
    samples = 5_000
    seen = next(capture(silent, [sound(samples)[0]], list(silent.sites))).activations
    for name, x_BTD in seen.items():
        rate = silent.sites[name].frame_rate
        assert rate is not None and silent.sample_rate is not None
        assert x_BTD.shape[1] == pytest.approx(samples * rate / silent.sample_rate, abs=1), name


def test_frames_that_make_no_windows() -> None:
    with pytest.raises(ModelError, match="40 frames do not make windows of 32 frames"):
        opened(32_000, noise=False).decode(torch.zeros(1, 40, 128))
    assert opened(24_000, noise=False).decode(torch.zeros(1, 5, 128)).shape == (1, 1, 5 * 512)


def test_a_cut_between_windows_is_not_heard_behind_the_context(silent: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    # through the codebooks, rounding may now and then choose another code
    monkeypatch.setattr(silent, "quantize", False)
    assert silent.sample_rate is not None
    grid = round(silent.chunk_s * silent.sample_rate)
    context = -(-round(silent.context_s * silent.sample_rate) // grid) * grid
    audio_BCN = sound(2 * context + 2 * grid)
    whole, part = silent.run(audio_BCN), silent.run(audio_BCN[..., 2 * grid :])
    torch.testing.assert_close(
        part[..., context:], whole[..., context + 2 * grid :], atol=1e-5 * float(whole.abs().max()), rtol=0
    )


@pytest.mark.parametrize(("rate", "millions"), [(24_000, 19.8), (32_000, 54.5), (44_100, 54.5)])
def test_the_published_sizes(rate: int, millions: float) -> None:
    with torch.device("meta"):
        model = wrap_model(snac.SNAC(**config_of(rate, published=True)))
    # weight norm has a number for each channel more
    assert sum(one.numel() for one in model.module.parameters()) == pytest.approx(millions * 1e6, rel=5e-3)
    assert isinstance(model, Codec)
    assert model.sites["latent"].width == {24_000: 768}.get(rate, 1024)
    assert model.frame_rate == pytest.approx({24_000: 46.875, 32_000: 83.333, 44_100: 114.844}[rate], abs=5e-4)


class TestOpening:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        module = snac.SNAC(**config_of(24_000, published=False))
        return Path(save(24_000, module, tmp_path / "model"))

    def test_it_is_what_the_package_loads(self, folder: Path) -> None:
        model, own = open_model(folder), snac.SNAC.from_pretrained(str(folder))
        audio_BCN = sound(3_000)
        with torch.no_grad():
            assert torch.equal(model.encode(audio_BCN), own.encoder(own.preprocess(audio_BCN)).transpose(1, 2))
        assert (model.name, model.sample_rate) == (str(folder), 24_000)

    def test_by_name_it_is_the_authors_repository(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []

        def snapshot(repository: str, **_: Any) -> str:
            asked.append(repository)
            return str(folder)

        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
        assert open_model("snac:24khz").name == "snac:24khz"
        assert open_model("hf:hubertsiuzdak/snac_24khz").kind == "codec"
        assert asked == ["hubertsiuzdak/snac_24khz"] * 2
        with pytest.raises(ModelError, match="there are snac:24khz, snac:32khz, snac:44khz"):
            open_model("snac:16khz")

    def test_without_a_network_it_is_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def snapshot(repository: str, **_: Any) -> str:
            raise OSError("cannot reach the hub,\nand nothing is in the cache")

        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
        with pytest.raises(ModelError, match="snac_32khz: could not be downloaded") as caught:
            open_model("snac:32khz")
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("damage", "line"),
        [
            ("gone", "not a SNAC that can be opened .*Missing key"),
            ("shape", "not a SNAC that can be opened .*size mismatch"),
            ("nan", "has values that are not finite"),
            ("code", "holds more than tensors"),
            ("config", "not a SNAC that can be opened .*surprise"),
            ("no file", "there are no weights"),
            ("cut", "cut short or damaged"),
        ],
    )
    def test_damage_is_one_line(self, folder: Path, damage: str, line: str) -> None:
        file, name = folder / "pytorch_model.bin", "encoder.block.0.bias"
        weights: Any = torch.load(file, weights_only=True)
        match damage:
            case "gone":
                del weights[name]
            case "shape":
                weights[name] = weights[name][1:]
            case "nan":
                weights[name][0] = torch.nan
            case "code":
                weights["more"] = Evil(folder / "trace")
            case "config":
                (folder / "config.json").write_text(json.dumps(config_of(24_000) | {"surprise": 1}))
        torch.save(weights, file)
        if damage == "no file":
            file.unlink()
        elif damage == "cut":
            file.write_bytes(file.read_bytes()[:-2_000])
        with pytest.raises(ModelError, match=line) as caught:
            open_model(folder)
        assert "\n" not in str(caught.value)
        assert not (folder / "trace").exists()


class Evil:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)
