from __future__ import annotations

import errno
import json
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hooks import AudioModel, Codec, ModelError, Site, SiteError, open_model, wrap_model
from hooks.errors import MissingExtraError
from hooks.families.wavtokenizer import WavTokenizerCodec
from hooks.networks.wavtokenizer import WavTokenizer, WavTokenizerConfig
from hooks.registry import FAMILIES
from tests.endpoint import a_hub


def save(module: WavTokenizer, folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architecture": "wavtokenizer", **module.config.to_dict()}))
    save_file(module.state_dict(), folder / "model.safetensors")
    return folder


class TestWrap:
    def test_wavtokenizer(self, config: WavTokenizerConfig) -> None:
        module = WavTokenizer(config)
        model = wrap_model(module)
        assert isinstance(model, WavTokenizerCodec)
        assert model.module is module

    def test_encodec_of_both_libraries(self) -> None:
        encodec = pytest.importorskip("encodec", reason="extra encodec")
        transformers = pytest.importorskip("transformers", reason="extra encodec")
        small = transformers.EncodecConfig(num_filters=4, hidden_size=8, codebook_dim=8, codebook_size=16)
        assert wrap_model(encodec.EncodecModel.encodec_model_24khz(pretrained=False)).name == "encodec:24khz"
        assert wrap_model(transformers.EncodecModel(small)).name == "hf:encodec_24khz"

    def test_a_subclass_is_of_the_family(self, config: WavTokenizerConfig) -> None:
        class Mine(WavTokenizer):
            pass

        assert isinstance(wrap_model(Mine(config)), WavTokenizerCodec)

    def test_any_other_module_has_the_sites_that_are_given(self) -> None:
        module = nn.Sequential(nn.Linear(2, 3))
        model = wrap_model(module, Site("line", "0", width=3))
        assert type(model) is AudioModel
        assert model.sites == {"line": Site("line", "0", width=3)}
        with pytest.raises(SiteError, match="no module '1'"):
            wrap_model(module, Site("line", "1"))

    def test_a_wrapped_model_stays_and_gets_more_sites(self, codec: WavTokenizerCodec) -> None:
        assert wrap_model(codec, Site("more", "head.out")) is codec
        assert {"more", "latent"} <= set(codec.sites)


class TestOpen:
    def test_a_folder(self, config: WavTokenizerConfig, tmp_path: Path) -> None:
        module = WavTokenizer(config)
        folder = save(module, tmp_path / "model")
        audio_BCN = torch.randn(1, 1, 500)
        for name in (folder, str(folder), f"wavtokenizer:{folder}"):
            model = open_model(name)
            assert isinstance(model, WavTokenizerCodec)
            assert torch.equal(model.run(audio_BCN), wrap_model(module).run(audio_BCN))

    @pytest.mark.parametrize("name", ["no-such-model", "nofamily:x", "encodec", "encodec:16khz", "hf", ""])
    def test_unknown_names(self, name: str) -> None:
        if name.startswith("encodec"):
            pytest.importorskip("encodec", reason="extra encodec")
        with pytest.raises(ModelError, match=r"there is no model|unknown model") as caught:
            open_model(name)
        assert "encodec:" in str(caught.value)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            (None, "has no config.json"),
            ("{", "not a JSON object"),
            ("[]", "not a JSON object"),
            ('{"model_type": "whatever"}', "models of type 'whatever' are not supported"),
            ('{"architecture": "wavtokenizer"}', "not a WavTokenizer that can be opened"),
            ('{"architecture": "wavtokenizer", "ratios": [2], "colour": 1}', "colour"),
        ],
    )
    def test_bad_folders(self, config: str | None, message: str, tmp_path: Path) -> None:
        if config is not None:
            (tmp_path / "config.json").write_text(config)
        with pytest.raises(ModelError, match=message) as caught:
            open_model(tmp_path)
        assert "\n" not in str(caught.value)

    def test_a_checkpoint_of_whisper_is_told_how_it_opens(self, tmp_path: Path) -> None:
        (tmp_path / "tiny.pt").write_bytes(b"")
        with pytest.raises(ModelError, match=r"has no config.json.*as in whisper:.*tiny\.pt"):
            open_model(tmp_path / "tiny.pt")

    def test_a_hub_model_without_a_network_is_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(ModelError, match=r"hf:nobody/nothing: could not be downloaded .* check the name"):
            open_model("hf:nobody/nothing")

    def test_a_packages_own_download_without_a_network_is_one_line(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytest.importorskip("encodec", reason="extra encodec")

        def offline(*args: object, **kwargs: object) -> None:
            raise URLError("no network")

        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        monkeypatch.setattr("torch.hub.download_url_to_file", offline)
        with pytest.raises(ModelError, match=r"encodec:24khz: the weights could not be downloaded .*no network"):
            open_model("encodec:24khz")


class TestHub:
    def test_a_model_and_its_revisions(
        self, config: WavTokenizerConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        audio_BCN = torch.randn(1, 1, 500)
        old, new = WavTokenizer(config), WavTokenizer(config)
        with a_hub(tmp_path / "cache", monkeypatch) as hub:
            repository = hub.add("who/codec", contents(save(old, tmp_path / "old")) | {"tf_model.h5": b"not for us"})
            first = repository.branches["main"]
            repository.commit("main", contents(save(new, tmp_path / "new")))
            for revision, module in ((None, new), (first, old)):
                model = open_model("hf:who/codec", revision)
                assert torch.equal(model.run(audio_BCN), wrap_model(module).run(audio_BCN))
            assert not any("tf_model.h5" in request for request in hub.requests)
            for faults, message in (
                ({}, "has no revision 'v3'"),
                ({"status": 503}, r"the hub answered with error 503\); try again later"),
            ):
                hub.faults = faults
                with pytest.raises(
                    ModelError, match=rf"^hf:who/codec: could not be downloaded \(.*{message}"
                ) as caught:
                    open_model("hf:who/codec", "v3")
                assert "\n" not in str(caught.value)

    def test_torn_and_spoiled_downloads_leave_nothing_behind(
        self, config: WavTokenizerConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with a_hub(tmp_path / "cache", monkeypatch) as hub:
            hub.add("who/codec", contents(save(WavTokenizer(config), tmp_path / "model")))
            for fault in ({"cut": 1000}, {"flip": True}):
                hub.faults = fault
                with pytest.raises(ModelError, match="^hf:who/codec: .*(try again|cannot be reached)"):
                    open_model("hf:who/codec")
            hub.faults = {}
            assert isinstance(open_model("hf:who/codec"), WavTokenizerCodec)


class TestPackagesOwnCaches:
    """The checkpoints that the packages themselves download: torn, spoiled, or made to do harm."""

    @pytest.fixture
    def cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        cache = tmp_path / "hub" / "checkpoints"
        cache.mkdir(parents=True)
        return cache

    def test_a_wrong_checksum(self, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("encodec", reason="extra encodec")
        whisper = pytest.importorskip("whisper", reason="extra whisper")
        served = tmp_path / "served" / ("0" * 64)
        served.mkdir(parents=True)
        (served / "encodec_24khz-d7cc33bc.th").write_bytes(b"something else")
        (served / "tiny.pt").write_bytes(b"something else")
        monkeypatch.setattr("encodec.model.ROOT_URL", f"{served.as_uri()}/")
        monkeypatch.setitem(whisper._MODELS, "tiny", f"{served.as_uri()}/tiny.pt")
        for name, message in (("encodec:24khz", "invalid hash value"), ("whisper:tiny", "checksum does not")):
            with pytest.raises(ModelError, match=f"^{name}: the weights could not be downloaded .*{message}") as caught:
                open_model(name)
            assert "\n" not in str(caught.value)
        assert list(cache.iterdir()) == []

    def test_code_in_the_cache_is_not_run(self, cache: Path, tmp_path: Path) -> None:
        pytest.importorskip("encodec", reason="extra encodec")

        class Trap:
            def __reduce__(self) -> tuple[object, ...]:
                return Path.touch, (tmp_path / "sprung",)

        torch.save({"x": Trap()}, cache / "encodec_24khz-d7cc33bc.th")
        with pytest.raises(ModelError, match="holds more than tensors"):
            open_model("encodec:24khz")
        assert not (tmp_path / "sprung").exists()

    def test_a_zip_bomb_given_as_a_whisper(self, tmp_path: Path) -> None:
        pytest.importorskip("whisper", reason="extra whisper")
        with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("bomb/data.pkl", bytes(5_000_000))
        with pytest.raises(ModelError, match=r"not a Whisper checkpoint that can be opened .*unpack to 5,000,000"):
            open_model(f"whisper:{tmp_path / 'bomb.pt'}")

    def test_the_packages_own_checkpoint(self, cache: Path) -> None:
        encodec = pytest.importorskip("encodec", reason="extra encodec")
        module = encodec.EncodecModel.encodec_model_24khz(pretrained=False)
        torch.save(module.state_dict(), cache / "encodec_24khz-d7cc33bc.th")
        found = open_model("encodec:24khz").module.state_dict()
        assert all(torch.equal(found[name], value) for name, value in module.state_dict().items())

    def test_a_full_disk(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("encodec", reason="extra encodec")

        def full(*args: object, **options: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("torch.hub.download_url_to_file", full)
        with pytest.raises(ModelError, match=r"^encodec:24khz: .*No space left on device"):
            open_model("encodec:24khz")


def replaced(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Changes what the family of WavTokenizer does."""
    monkeypatch.setitem(FAMILIES, "wavtokenizer", replace(FAMILIES["wavtokenizer"], **changes))


def test_numbers_that_are_not_finite_are_refused_whatever_the_family(
    config: WavTokenizerConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a family reads its weights in a way of its own."""
    folder, spoiled = save(WavTokenizer(config), tmp_path / "model"), WavTokenizer(config)
    with torch.no_grad():
        spoiled.head.out.bias[0] = torch.nan
    replaced(monkeypatch, open_folder=lambda folder, name: wrap_model(spoiled))
    with pytest.raises(ModelError, match=r"head\.out\.bias has values that are not finite"):
        open_model(folder)


@pytest.mark.parametrize("opener", ["open_folder", "open_name"])
def test_whatever_a_library_raises_is_one_line(
    opener: str, config: WavTokenizerConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*args: object) -> None:
        raise ZeroDivisionError("several\nlines")

    folder = save(WavTokenizer(config), tmp_path / "model")
    replaced(monkeypatch, **{opener: opened})
    name = f"wavtokenizer:{folder}" if opener == "open_name" else str(folder)
    with pytest.raises(ModelError, match=rf"^{name}: could not be opened \(several lines\); check its config.json"):
        open_model(name)


def test_a_library_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "hubert"}')
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'audiosteer\[ssl\]'"):
        open_model(tmp_path)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_names_and_types_are_of_one_family_each() -> None:
    for of in (lambda family: [family.name], lambda family: family.types, lambda family: family.classes):
        all_of_them = [one for family in FAMILIES.values() for one in of(family)]
        assert len(all_of_them) == len(set(all_of_them))


@pytest.mark.parametrize("size", [{"width": 10**5, "hidden": 10**5}, {"num_layers": 10**9}, {"bins": 10**9}])
def test_a_config_that_asks_for_far_more_than_the_weights(size: dict[str, int], tmp_path: Path) -> None:
    config = WavTokenizerConfig()
    save_file({"x": torch.ones(2)}, tmp_path / "model.safetensors")
    about = {"architecture": "wavtokenizer", **config.to_dict(), **size}
    (tmp_path / "config.json").write_text(json.dumps(about))
    with pytest.raises(ModelError, match="asks for a model far larger than its weights"):
        open_model(tmp_path)


def test_opening_draws_no_random_numbers() -> None:
    before = torch.get_rng_state()
    open_model("starter:codec")
    assert torch.equal(torch.get_rng_state(), before)


def test_a_model_opens_in_a_dtype() -> None:
    plain, model = open_model("starter:wavtokenizer"), open_model("starter:wavtokenizer", dtype=torch.float64)
    assert plain.dtype == torch.float32 and model.dtype == torch.float64
    audio_BCN = 0.1 * torch.randn(1, 1, 4000, generator=torch.Generator().manual_seed(0))
    assert isinstance(plain, Codec) and isinstance(model, Codec)
    z_BTD = model.encode(audio_BCN.double())
    assert z_BTD.dtype == torch.float64
    torch.testing.assert_close(z_BTD.float(), plain.encode(audio_BCN), atol=1e-4, rtol=1e-3)
    assert open_model("starter:wavtokenizer", dtype=torch.bfloat16).prepare(audio_BCN[0]).dtype == torch.bfloat16
    with pytest.raises(ModelError, match=r"floating-point dtype, not in torch\.int8"):
        open_model("starter:wavtokenizer", dtype=torch.int8)
