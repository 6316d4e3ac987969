"""A script of the published interface, strides and latent, narrow and with random weights."""

from __future__ import annotations

import copy
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hooks import Clip, ModelError, SiteError, at_time, attach, capture, open_model, wrap_model
from hooks.families.diffrhythm import DiffRhythmVAE, ScriptedVAE
from steer import SAE, Shift, SteeredModel
from steer.errors import EditError
from tests.hooks.contract.diffrhythm import Exported, small

HOP = 2048


@pytest.fixture(scope="module")
def script() -> Any:
    torch.manual_seed(0)
    return torch.jit.script(small()).eval()


@pytest.fixture(scope="module")
def codec(script: Any) -> DiffRhythmVAE:
    model = wrap_model(script)
    assert isinstance(model, DiffRhythmVAE)
    return model


@pytest.fixture
def file(script: Any, tmp_path: Path) -> Path:
    torch.jit.save(script, tmp_path / "vae_model.pt")
    return tmp_path / "vae_model.pt"


def noise(samples: int, rows: int = 1) -> Tensor:
    return 0.2 * torch.randn(rows, 2, samples, generator=torch.Generator().manual_seed(samples))


def push(x_BTD: Tensor) -> Tensor:
    return x_BTD + torch.linspace(-1, 1, x_BTD.shape[2]).to(x_BTD)


def steered_at(model: DiffRhythmVAE, site: str) -> SteeredModel:
    torch.manual_seed(1)
    return SteeredModel(model, SAE(64, 96, k=8).requires_grad_(False), site)


class TestRoundTrip:
    @torch.no_grad()
    def test_it_is_that_of_the_two_methods(self, codec: DiffRhythmVAE, script: Any) -> None:
        audio_BCN = noise(5 * HOP, rows=2)
        own = script.decode_export(script.encode_export(audio_BCN)[:, :64])
        assert torch.equal(codec.run(audio_BCN), own)
        assert torch.equal(codec(audio_BCN), own)
        assert torch.equal(codec.decode(codec.encode(audio_BCN)), own)
        assert torch.equal(codec.encode_export(audio_BCN), script.encode_export(audio_BCN))

    @torch.no_grad()
    def test_of_stable_audios_network_it_is_diffusers_own(self) -> None:
        diffusers = pytest.importorskip("diffusers", reason="extra vae")
        torch.manual_seed(0)
        module = diffusers.AutoencoderOobleck(4, [2, 4, 4, 8, 8], [1, 1, 1, 1, 32], 2, 64).eval()
        module.encoder.conv2 = nn.Conv1d(128, 128, 3, padding=1)
        audio_BCN = noise(3 * HOP)
        wanted = module(audio_BCN).sample
        for part in module.modules():
            if hasattr(part, "weight_g"):
                nn.utils.remove_weight_norm(part)  # which TorchScript does not take
        codec = wrap_model(torch.jit.script(Exported(module.encoder, module.decoder)))
        torch.testing.assert_close(codec.run(audio_BCN), wanted)

    @pytest.mark.parametrize("samples", [1, HOP - 1, HOP + 1, 5_000])
    def test_the_end_is_filled_up_and_cut_again(self, codec: DiffRhythmVAE, samples: int) -> None:
        audio_BCN = noise(samples)
        filled_BCN = torch.zeros(1, 2, -(-samples // HOP) * HOP)
        filled_BCN[..., :samples] = audio_BCN
        assert torch.equal(codec.run(audio_BCN), codec.run(filled_BCN)[..., :samples])

    def test_mono_is_heard_on_both_sides(self, codec: DiffRhythmVAE) -> None:
        back = codec.resynthesize(Clip(0.1 * torch.randn(1, 8_000), 16_000))
        assert (back.sample_rate, back.waveform.shape) == (44_100, (2, 22_050))

    def test_sites_are_as_declared(self, codec: DiffRhythmVAE) -> None:
        seen = next(capture(codec, [noise(20_000)[0]], list(codec.sites))).activations
        assert {name: tuple(x_BTD.shape) for name, x_BTD in seen.items()} == {
            "latent": (1, 10, 64),
            "decoder_input": (1, 10, 64),
            "decoder_output": (1, 20_000, 2),
        }
        assert torch.equal(seen["latent"], codec.encode(noise(20_000)))
        assert codec.frame_rate == codec.sites["latent"].frame_rate == 44_100 / 2048


class TestEdits:
    @pytest.mark.parametrize("site", ["latent", "decoder_input"])
    @torch.no_grad()
    def test_the_latent_is_edited_between_the_two_methods(self, codec: DiffRhythmVAE, script: Any, site: str) -> None:
        audio_BCN = noise(4 * HOP)
        z_BTD = script.encode_export(audio_BCN)[:, :64].transpose(1, 2)
        wanted = script.decode_export(push(z_BTD).transpose(1, 2))
        plain = codec.run(audio_BCN)
        with attach(codec.module, codec.site(site), push):
            assert torch.equal(codec.run(audio_BCN), wanted)
        assert torch.equal(codec.run(audio_BCN), plain)
        assert not torch.equal(plain, wanted)

    def test_the_scale_is_left(self, codec: DiffRhythmVAE) -> None:
        audio_BCN = noise(2 * HOP)
        with torch.no_grad():
            plain_BDT = codec.encode_export(audio_BCN)
            with attach(codec.module, codec.site("latent"), push):
                changed_BDT = codec.encode_export(audio_BCN)
        assert torch.equal(changed_BDT[:, 64:], plain_BDT[:, 64:])
        assert torch.equal(changed_BDT[:, :64].transpose(1, 2), push(plain_BDT[:, :64].transpose(1, 2)))

    def test_through_a_steered_model(self, codec: DiffRhythmVAE) -> None:
        steered = steered_at(codec, "latent")
        assert steered.features(Clip(noise(9_000)[0], 44_100))["latent"].shape == (1, 5, 96)
        audio_BCN, edit = noise(4 * HOP), Shift(torch.ones(96), 3.0)
        plain = codec.run(audio_BCN)
        with steered.edit(edit):
            assert not torch.equal(steered.run(audio_BCN), plain)
        assert torch.equal(steered.run(audio_BCN), plain)

    @torch.no_grad()
    def test_chunks_of_inference_code_have_no_time_unless_it_is_said(self, codec: DiffRhythmVAE) -> None:
        steered, z_BDT = steered_at(codec, "decoder_input"), torch.randn(1, 64, 6)
        early = Shift(torch.ones(96), 3.0, during=(0.0, 1.5 * HOP / 44_100))
        plain = codec.decode_export(z_BDT)
        with steered.edit(early):
            with pytest.raises(EditError, match="say the time with at_time"):
                steered.module.decode_export(z_BDT)
            with at_time(0.0):
                changed = steered.module.decode_export(z_BDT)
            with at_time(1.0):
                later = steered.module.decode_export(z_BDT)
            assert torch.equal(steered.decode(z_BDT.transpose(1, 2)), changed)
        assert torch.equal(later, plain)
        assert not torch.equal(changed, plain)
        with steered.edit(Shift(torch.ones(96), 3.0)):
            assert not torch.equal(steered.module.decode_export(z_BDT), plain)


class TestModule:
    def test_the_script_stays_as_it_is(self, codec: DiffRhythmVAE, script: Any) -> None:
        assert codec.module.script is script
        assert [name.removeprefix("script.") for name in codec.module.state_dict()] == list(script.state_dict())
        with pytest.raises(SiteError, match="TorchScript, which takes no hooks"):
            attach(codec.module, codec.site("script.encoder"), push)

    def test_a_wrapped_module_is_recognised(self, codec: DiffRhythmVAE) -> None:
        again = wrap_model(codec.module)
        assert isinstance(again, DiffRhythmVAE)
        assert again.module is codec.module

    def test_a_copy_is_on_its_own(self, script: Any) -> None:
        model = wrap_model(copy.deepcopy(script))
        plain = model.run(noise(HOP))
        twin = copy.deepcopy(model)
        with torch.no_grad():
            for one in twin.parameters():
                one.zero_()
        assert torch.equal(model.run(noise(HOP)), plain)
        assert not twin.run(noise(HOP)).any()

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision(self, script: Any, codec: DiffRhythmVAE, dtype: torch.dtype) -> None:
        with torch.no_grad():  # else the weights of a copied script are no leaves
            model = wrap_model(copy.deepcopy(script).to(dtype))
        assert model.dtype == dtype
        output, wanted = model.run(noise(HOP).to(dtype)), codec.run(noise(HOP))
        assert output.dtype == dtype
        assert float((output - wanted).abs().max()) < 0.05 * float(wanted.abs().max())

    def test_a_frozen_script(self, script: Any, codec: DiffRhythmVAE) -> None:
        frozen = torch.jit.freeze(copy.deepcopy(script), preserved_attrs=["encode_export", "decode_export"])
        torch.testing.assert_close(wrap_model(frozen).run(noise(HOP)), codec.run(noise(HOP)))

    @pytest.mark.parametrize("kind", ["scripted", "traced"])
    def test_any_other_script_is_refused(self, kind: str) -> None:
        line = nn.Linear(2, 2)
        module = torch.jit.script(line) if kind == "scripted" else torch.jit.trace(line, torch.randn(1, 2))
        with pytest.raises(ModelError, match=r"Linear: TorchScript takes no hooks.*has no encode_export and no decode"):
            wrap_model(module)


class Writes(nn.Module):
    """What is needed for the check of what a file may do, which comes before that of what it is."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self.target, self.weight = target, nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        torch.save(x, self.target)
        return x


class WritesWhenOpened(nn.Module):
    def __init__(self, target: str) -> None:
        super().__init__()
        self.target, self.weight = target, torch.zeros(1)

    @torch.jit.export
    def __getstate__(self) -> tuple[str, Tensor, bool]:
        return self.target, self.weight, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, Tensor, bool]) -> None:
        self.target, self.weight, self.training = state
        torch.save(self.weight, self.target)


class TestFiles:
    def test_a_file_or_its_folder(self, codec: DiffRhythmVAE, file: Path) -> None:
        for name in (f"diffrhythm:{file}", f"diffrhythm:{file.parent}"):
            model = open_model(name)
            assert isinstance(model, DiffRhythmVAE)
            assert model.name == name
            assert torch.equal(model.run(noise(HOP)), codec.run(noise(HOP)))

    def test_from_the_hub(self, codec: DiffRhythmVAE, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []

        def snapshot(repository: str, **options: Any) -> str:
            asked.append((repository, options["allow_patterns"]))
            return str(file.parent)

        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
        model = open_model("diffrhythm:ASLP-lab/DiffRhythm-vae")
        assert torch.equal(model.run(noise(HOP)), codec.run(noise(HOP)))
        assert asked == [("ASLP-lab/DiffRhythm-vae", ["vae_model.pt"])]

    def test_without_a_network(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*args: Any, **kwargs: Any) -> None:
            raise OSError("no network\nand more lines")

        monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
        with pytest.raises(ModelError, match="DiffRhythm-vae: could not be downloaded .no network") as caught:
            open_model("diffrhythm:ASLP-lab/DiffRhythm-vae")
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("damage", ["gone", "junk", "cut short", "weights", "not finite", "bomb"])
    def test_what_cannot_be_opened_is_one_line(self, file: Path, script: Any, damage: str) -> None:
        message = "no TorchScript file that can be read"
        if damage == "gone":
            file.unlink()
            message = "No such file"
        elif damage == "junk":
            file.write_bytes(b"junk")
        elif damage == "cut short":
            file.write_bytes(file.read_bytes()[:-2000])
        elif damage == "weights":
            torch.save(script.state_dict(), file)
            message = "holds no TorchScript code"
        elif damage == "not finite":
            broken = copy.deepcopy(script)
            with torch.no_grad():
                next(broken.parameters())[0] = torch.nan
            torch.jit.save(broken, file)
            message = "encoder.0.weight has values that are not finite"
        else:
            with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("vae_model/code/long.py", b" " * (65 * 2**20))
            message = "would unpack to .* not to be trusted"
        with pytest.raises(ModelError, match=message) as caught:
            open_model(f"diffrhythm:{file}")
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("kind", [Writes, WritesWhenOpened])
    def test_code_that_writes_files_is_not_run(self, kind: type[nn.Module], tmp_path: Path) -> None:
        target, path = tmp_path / "written", tmp_path / "vae_model.pt"
        torch.jit.save(torch.jit.script(kind(str(target))), path)
        with pytest.raises(ModelError, match=r"code that does more than compute \('save'\)"):
            open_model(f"diffrhythm:{path}")
        assert not target.exists()
        torch.jit.load(path)  # shows what the second of them would have done
        assert target.exists() == (kind is WritesWhenOpened)

    @pytest.mark.parametrize(
        ("line", "refused"),
        [
            ("y = ops.image.write_file(x)", True),
            ("y = ops.#\n  image.write_file(x)", True),
            ("y = torch.from_file(s, True)", True),
            ("y : __torch__.torch.classes.store.File = x", True),
            ("y = ops.prim.data(x)", False),
            ("y = torch.sin(x)", False),
        ],
    )
    def test_words_that_reach_out(self, line: str, refused: bool, file: Path) -> None:
        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr("vae_model/code/unused.PY", f"def f(x):\n  {line}\n  return y\n")
        if refused:
            with pytest.raises(ModelError, match="does more than compute"):
                open_model(f"diffrhythm:{file}")
        else:
            assert isinstance(open_model(f"diffrhythm:{file}").module, ScriptedVAE)

    def test_a_script_that_is_something_else(self, tmp_path: Path) -> None:
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "line.pt")
        with pytest.raises(ModelError, match=r"line.pt: TorchScript takes no hooks.*no encode_export"):
            open_model(f"diffrhythm:{tmp_path / 'line.pt'}")
