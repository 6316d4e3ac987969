"""`AutoencoderOobleck` with random weights, at the published strides and narrow."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hooks import Clip, ModelError, SiteError, at_time, attach, capture, open_model, wrap_model
from hooks.families.oobleck import MeanSite, OobleckVAE
from hooks.timing import current_time
from steer import SAE, Shift, SteeredModel
from steer.errors import EditError

diffusers = pytest.importorskip("diffusers", reason="extra vae")

HOP = 2048
SIZE: dict[str, Any] = {
    "encoder_hidden_size": 8,
    "decoder_channels": 4,
    "decoder_input_channels": 4,
    "channel_multiples": [1, 1, 1, 2, 4],
}


@pytest.fixture(scope="module")
def codec() -> OobleckVAE:
    torch.manual_seed(0)
    model = wrap_model(diffusers.AutoencoderOobleck(**SIZE))
    assert isinstance(model, OobleckVAE)
    return model


@pytest.fixture
def tiled(codec: OobleckVAE) -> Iterator[OobleckVAE]:
    """In tiles of 36 frames, 10 of them overlap on both sides: more than encoder or decoder see to one side."""
    module = codec.module
    before = {name: value for name, value in vars(module).items() if name.startswith(("use_", "tile_"))}
    module.enable_tiling()
    module.tile_sample_min_length, module.tile_sample_overlap = 36 * HOP, 10 * HOP
    module.tile_latent_min_length, module.tile_latent_overlap = 36, 10
    yield codec
    vars(module).update(before)


def noise(samples: int, rows: int = 1) -> Tensor:
    return 0.2 * torch.randn(rows, 2, samples, generator=torch.Generator().manual_seed(samples))


@torch.no_grad()
def own_round_trip(codec: OobleckVAE, audio_BCN: Tensor) -> Tensor:
    return codec.module(audio_BCN).sample


def push(x_BTD: Tensor) -> Tensor:
    return x_BTD + torch.linspace(-1, 1, x_BTD.shape[2]).to(x_BTD)


class TestPublishedSize:
    @pytest.fixture
    def model(self) -> OobleckVAE:
        with torch.device("meta"):  # shapes without the 624 MB
            return OobleckVAE(diffusers.AutoencoderOobleck())

    def test_parameters(self, model: OobleckVAE) -> None:
        assert sum(one.numel() for one in model.parameters()) == 156_112_514
        assert (model.sample_rate, model.channels, model.hop_length) == (44_100, 2, 2048)

    def test_sites(self, model: OobleckVAE) -> None:
        assert {name: site.width for name, site in model.sites.items()} == {
            "encoder.0": 128,
            "encoder.1": 128,
            "encoder.2": 256,
            "encoder.3": 512,
            "encoder.4": 1024,
            "encoder.5": 2048,
            "encoder.6": 2048,
            "encoder.7": 128,
            "latent": 64,
            "decoder_input": 64,
            "decoder.0": 2048,
            "decoder.1": 1024,
            "decoder.2": 512,
            "decoder.3": 256,
            "decoder.4": 128,
            "decoder.5": 128,
            "decoder.6": 128,
            "decoder.7": 2,
        }
        rates = [site.frame_rate for site in model.sites.values()]
        steps = [1, 2, 8, 32, 256, 2048, 2048, 2048, 2048, 2048, 2048, 256, 32, 8, 2, 1, 1, 1]
        assert rates == [44_100 / step for step in steps]


class TestRoundTrip:
    def test_it_is_the_librarys_own(self, codec: OobleckVAE) -> None:
        audio_BCN = noise(5 * HOP, rows=2)
        assert torch.equal(codec.run(audio_BCN), own_round_trip(codec, audio_BCN))

    @pytest.mark.parametrize("samples", [1, HOP - 1, HOP, HOP + 1, 5_000])
    def test_the_end_is_filled_up_and_cut_again(self, codec: OobleckVAE, samples: int) -> None:
        audio_BCN = noise(samples)
        frames = -(-samples // HOP)
        filled_BCN = torch.zeros(1, 2, frames * HOP)
        filled_BCN[..., :samples] = audio_BCN
        assert codec.encode(audio_BCN).shape == (1, frames, 4)
        assert torch.equal(codec.run(audio_BCN), own_round_trip(codec, filled_BCN)[..., :samples])

    def test_the_mean_is_taken_whatever_the_seed(self, codec: OobleckVAE) -> None:
        audio_BCN, outputs = noise(3 * HOP), []
        for seed in (0, 1):
            torch.manual_seed(seed)
            outputs.append(codec.run(audio_BCN))
        assert torch.equal(*outputs)

    @torch.no_grad()
    def test_what_encode_gives_passes_at_latent_and_decode_takes_it(self, codec: OobleckVAE) -> None:
        audio_BCN = noise(4 * HOP)
        seen = next(capture(codec, [audio_BCN[0]], ["latent", "decoder_input", "encoder.7"])).activations
        z_BTD = codec.encode(audio_BCN)
        assert torch.equal(z_BTD, codec.module.encode(audio_BCN).latent_dist.mode().transpose(1, 2))
        assert torch.equal(seen["latent"], z_BTD)
        assert torch.equal(seen["decoder_input"], z_BTD)
        assert torch.equal(seen["encoder.7"][..., :4], z_BTD)
        assert torch.equal(codec.decode(z_BTD), codec.run(audio_BCN))

    def test_filling_is_not_among_the_frames_that_are_read(self, codec: OobleckVAE) -> None:
        seen = next(capture(codec, [noise(3_000)[0]], ["encoder.0", "encoder.4", "latent", "decoder.7"])).activations
        assert {name: x_BTD.shape[1] for name, x_BTD in seen.items()} == {
            "encoder.0": 3_000,
            "encoder.4": 12,  # 3000 / 256 begun
            "latent": 2,
            "decoder.7": 3_000,
        }

    def test_mono_is_heard_on_both_sides(self, codec: OobleckVAE) -> None:
        mono = Clip(0.1 * torch.randn(1, 8_000), 16_000)
        audio_BCN = codec.prepare(mono)
        assert audio_BCN.shape == (1, 2, 22_050)
        assert torch.equal(audio_BCN[:, 0], audio_BCN[:, 1])
        assert codec.resynthesize(mono).waveform.shape == (2, 22_050)

    def test_a_change_reaches_no_further_than_context_s(self, codec: OobleckVAE) -> None:
        audio_BCN = noise(45 * HOP)
        changed_BCN = audio_BCN.clone()
        at = 22 * HOP
        changed_BCN[..., at] += 1.0
        (moved_N,) = torch.nonzero((codec.run(changed_BCN) != codec.run(audio_BCN)).any(1)[0], as_tuple=True)
        reach = max(at - int(moved_N.min()), int(moved_N.max()) - at)
        assert 0.5 < reach / 44_100 < codec.context_s

    def test_slicing_leaves_batches_whole(self, codec: OobleckVAE) -> None:
        audio_BCN, shapes = noise(2 * HOP, rows=2), []
        codec.module.enable_slicing()
        try:
            with attach(codec.module, codec.site("latent"), lambda x_BTD: shapes.append(x_BTD.shape)):
                codec.run(audio_BCN)
        finally:
            codec.module.disable_slicing()
        assert shapes == [(2, 2, 4)]


class TestMean:
    site = MeanSite("latent", "encoder", "BDT", width=3)

    def test_it_is_the_first_half(self) -> None:
        gaussian_BDT = torch.randn(2, 6, 5)
        assert torch.equal(self.site.read(gaussian_BDT), gaussian_BDT[:, :3].transpose(1, 2))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
    def test_a_change_leaves_scale_and_memory_layout(self, dtype: torch.dtype) -> None:
        gaussian_BDT, x_BTD = torch.randn(2, 6, 5).to(dtype), torch.randn(2, 5, 3)
        before = gaussian_BDT.clone()
        changed_BDT = self.site.write(gaussian_BDT, x_BTD)
        assert torch.equal(changed_BDT[:, :3], x_BTD.transpose(1, 2).to(dtype))
        assert torch.equal(changed_BDT[:, 3:], before[:, 3:])
        assert torch.equal(gaussian_BDT, before)
        assert changed_BDT.stride() == gaussian_BDT.stride()

    @pytest.mark.parametrize("shape", [(2, 5, 6), (2, 4, 3), (1, 5, 3)])
    def test_another_shape(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(SiteError, match=r"the change has shape .* the activation \[2, 5, 3\]"):
            self.site.write(torch.randn(2, 6, 5), torch.randn(shape))

    @torch.no_grad()
    def test_an_edit_moves_what_the_library_draws_and_leaves_its_spread(self, codec: OobleckVAE) -> None:
        audio_BCN = noise(3 * HOP)

        def draw() -> tuple[Tensor, Tensor]:
            found = codec.module.encode(audio_BCN).latent_dist
            return found.sample(torch.Generator().manual_seed(0)).transpose(1, 2), found.std

        plain_BTD, std_BDT = draw()
        with attach(codec.module, codec.site("latent"), push):
            moved_BTD, moved_std_BDT = draw()
        torch.testing.assert_close(moved_BTD, push(plain_BTD))  # (mean + push) + noise against (mean + noise) + push
        assert torch.equal(moved_std_BDT, std_BDT)


class TestTiles:
    def test_the_published_sizes_are_declared(self, codec: OobleckVAE) -> None:
        steps = [codec.sites[name].chunk_s for name in ("encoder.0", "latent", "decoder_input", "decoder.7")]
        assert steps == pytest.approx([26.0, 26.0, 384 * HOP / 44_100, 384 * HOP / 44_100])

    # the last: tiles that begin in the middle of frames, as the library's own 26 s do
    @pytest.mark.parametrize(("frames", "tile"), [(36, None), (37, None), (40, (50_000, 16_500))])
    def test_they_are_the_librarys_own(
        self, tiled: OobleckVAE, frames: int, tile: tuple[int, int] | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if tile:
            monkeypatch.setattr(tiled.module, "tile_sample_min_length", tile[0])
            monkeypatch.setattr(tiled.module, "tile_sample_overlap", tile[1])
        audio_BCN = noise(frames * HOP)
        own = own_round_trip(tiled, audio_BCN)
        assert torch.equal(tiled.run(audio_BCN), own[..., : frames * HOP])

    def test_their_times_are_known(self, tiled: OobleckVAE) -> None:
        seen: dict[str, list[tuple[float, int]]] = {"latent": [], "decoder_input": []}

        def note(name: str, x_BTD: Tensor) -> None:
            time = current_time()
            assert time is not None
            seen[name].append((round(time * 44_100 / HOP, 6), x_BTD.shape[1]))

        with (
            attach(tiled.module, tiled.site("latent"), partial(note, "latent")),
            attach(tiled.module, tiled.site("decoder_input"), partial(note, "decoder_input")),
            at_time(1000 * HOP / 44_100),
        ):
            tiled.run(noise(40 * HOP))
        # 16 frames of each tile's own, 10 on both sides where there are any
        assert seen["latent"] == seen["decoder_input"] == [(1000, 26), (1006, 34), (1022, 18)]

    @pytest.mark.parametrize("site", ["latent", "decoder_input"])
    def test_a_timed_edit_is_the_one_on_the_whole(self, tiled: OobleckVAE, site: str) -> None:
        audio_BCN = noise(40 * HOP)
        steered = SteeredModel(tiled, SAE(4, 8, k=2).requires_grad_(False), site, check=False)
        in_both_tiles = Shift(torch.ones(8), 3.0, during=(0.65, 0.85))  # frames 14 to 18; tiles meet at 16
        with steered.edit(in_both_tiles):
            in_tiles = steered.run(audio_BCN)
            tiled.module.disable_tiling()
            whole = steered.run(audio_BCN)
        plain = tiled.run(audio_BCN)
        # convolutions of other lengths round otherwise
        torch.testing.assert_close(in_tiles, whole, atol=1e-5, rtol=1e-4)
        assert float((whole - plain).abs().max()) > 1e-2
        assert torch.equal(whole[..., : 3 * HOP], plain[..., : 3 * HOP])

    def test_where_the_time_is_not_known_timed_edits_are_refused(self, tiled: OobleckVAE) -> None:
        steered = SteeredModel(tiled, SAE(4, 8, k=2).requires_grad_(False), "latent", check=False)
        audio_BCN, edit = noise(2 * HOP), Shift(torch.ones(8), 3.0, during=(0.0, 0.05))
        with torch.no_grad(), steered.edit(edit):
            wanted = steered.run(audio_BCN)
            for own in (tiled, tiled.module, tiled.module.encode):
                with pytest.raises(EditError, match="say the time with at_time"):
                    own(audio_BCN)
            with at_time(0.0):
                assert torch.equal(tiled.module(audio_BCN).sample, wanted)
            tiled.module.disable_tiling()
            assert torch.equal(steered(audio_BCN).sample, wanted)

    def test_an_overlap_that_leaves_nothing(self, tiled: OobleckVAE) -> None:
        tiled.module.tile_sample_overlap = 18 * HOP
        with pytest.raises(ModelError, match="a tile of 73728 with an overlap of 36864 on both sides has nothing"):
            tiled.run(noise(37 * HOP))


class TestFolders:
    @pytest.fixture
    def folder(self, codec: OobleckVAE, tmp_path: Path) -> Path:
        codec.module.save_pretrained(tmp_path / "pipeline" / "vae")
        return tmp_path / "pipeline" / "vae"

    def test_what_save_pretrained_wrote(self, codec: OobleckVAE, folder: Path) -> None:
        audio_BCN = noise(2 * HOP)
        for name in (str(folder), f"oobleck:{folder}", f"oobleck:{folder.parent}"):
            model = open_model(name)
            assert model.name == name
            assert torch.equal(model.run(audio_BCN), codec.run(audio_BCN))

    @pytest.mark.parametrize("damage", ["junk", "no weights", "other shape", "missing", "not finite", "bad value"])
    def test_damaged_folders_are_one_line(self, folder: Path, damage: str) -> None:
        weights, config = folder / "diffusion_pytorch_model.safetensors", folder / "config.json"
        state, values = load_file(weights), json.loads(config.read_text())
        message = "not an AutoencoderOobleck"
        if damage == "junk":
            weights.write_bytes(b"junk")
            message = "holds something else"
        elif damage == "no weights":
            weights.unlink()
            message = "there are no weights"
        elif damage == "not finite":
            state["decoder.conv1.bias"][0] = torch.nan
            save_file(state, weights)
            message = "decoder.conv1.bias has values that are not finite"
        elif damage == "missing":
            del state["decoder.conv1.bias"]
            save_file(state, weights)
            message = "Missing key.*decoder.conv1.bias"
        else:
            changed = {"decoder_input_channels": 6} if damage == "other shape" else {"downsampling_ratios": "many"}
            config.write_text(json.dumps(values | changed))
        with pytest.raises(ModelError, match=message) as caught:
            open_model(folder)
        assert "\n" not in str(caught.value)

    def test_another_autoencoder_of_the_library(self, folder: Path) -> None:
        values = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(values | {"_class_name": "AutoencoderKL"}))
        with pytest.raises(ModelError, match="models of type 'AutoencoderKL' are not supported"):
            open_model(folder)

    def test_no_such_folder(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=f"there is no folder {tmp_path / 'gone'}"):
            open_model(f"oobleck:{tmp_path / 'gone'}")

    def test_of_a_hub_pipeline_only_the_vae_is_fetched(
        self, codec: OobleckVAE, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = {}

        def snapshot(repository: str, **options: Any) -> str:
            asked.update(options, repository=repository)
            return str(folder.parent)

        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
        model = open_model("oobleck:stabilityai/stable-audio-open-1.0")
        assert torch.equal(model.run(noise(HOP)), codec.run(noise(HOP)))
        assert asked["repository"] == "stabilityai/stable-audio-open-1.0"
        assert "vae/*" in asked["allow_patterns"]

    @pytest.mark.parametrize("why", ["Cannot access gated repo: 401", "no network"])
    def test_a_repository_that_cannot_be_had_is_one_line(self, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*args: Any, **kwargs: Any) -> None:
            raise OSError(f"{why}\nand more lines")

        monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
        with pytest.raises(ModelError, match=f"stable-audio-open-1.0: could not be downloaded .{why}") as caught:
            open_model("oobleck:stabilityai/stable-audio-open-1.0")
        assert "\n" not in str(caught.value)


def test_it_can_be_copied_after_it_ran(codec: OobleckVAE) -> None:
    plain = codec.run(noise(HOP))
    twin = copy.deepcopy(codec)
    assert torch.equal(twin.run(noise(HOP)), plain)
    assert twin.module is not codec.module
