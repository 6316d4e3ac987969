from __future__ import annotations

import json
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from hooks import AudioModel, ModelError, Site, SiteError, open_model, wrap_model
from hooks.families.wavtokenizer import WavTokenizerCodec
from hooks.networks.wavtokenizer import WavTokenizer, WavTokenizerConfig


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
        with pytest.raises(ModelError, match=r"has no config.json.*opens as whisper:.*tiny\.pt"):
            open_model(tmp_path / "tiny.pt")

    def test_a_hub_model_without_a_network_is_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(ModelError, match=r"hf:nobody/nothing: could not be downloaded .* check the name") as caught:
            open_model("hf:nobody/nothing")
        assert "\n" not in str(caught.value)

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
