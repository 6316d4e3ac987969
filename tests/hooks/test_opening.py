"""Folders of transformers' models that are damaged, or that somebody has made to do harm: each is one line of ours."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hooks import ModelError, open_model

SAFE, BIN, CONFIG = "model.safetensors", "pytorch_model.bin", "config.json"


def hubert(transformers: Any) -> Any:
    config = transformers.HubertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, conv_dim=(4,) * 7,
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    return transformers.HubertModel(config)


def encodec(transformers: Any) -> Any:
    config = transformers.EncodecConfig(num_filters=4, hidden_size=8, codebook_dim=8, codebook_size=16)
    return transformers.EncodecModel(config)


def whisper(transformers: Any) -> Any:
    tokens = dict.fromkeys(("decoder_start_token_id", "bos_token_id", "eos_token_id", "pad_token_id"), 3)
    config = transformers.WhisperConfig(
        vocab_size=60, d_model=8, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=8, decoder_layers=1,
        decoder_attention_heads=2, decoder_ffn_dim=8, max_target_positions=20, **tokens,
    )  # fmt: skip
    return transformers.WhisperForConditionalGeneration(config)


class Trap:
    """What is unpickled by making a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


@pytest.fixture(scope="module", params=[hubert, encodec, whisper], ids=lambda build: build.__name__)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformers = pytest.importorskip("transformers", reason="extras ssl, encodec, whisper")
    folder = tmp_path_factory.mktemp("saved")
    torch.manual_seed(0)
    request.param(transformers).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A good folder of a small model, to be damaged."""
    shutil.copytree(saved, tmp_path / "model")
    return tmp_path / "model"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / SAFE)


def a_matrix(state: dict[str, torch.Tensor]) -> str:
    return next(name for name, value in state.items() if value.ndim == 2 and value.is_floating_point())


def rewrite(folder: Path, **changes: torch.Tensor | None) -> None:
    state = weights(folder) | changes
    save_file({k: v for k, v in state.items() if v is not None}, folder / SAFE, {"format": "pt"})


def refused(folder: Path, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        open_model(folder)
    text = str(caught.value)
    assert "\n" not in text
    assert str(folder) in text
    assert len(text.replace(str(folder), "")) < 350
    assert not (folder / "sprung").exists()


def test_a_bin_file_of_tensors_opens(folder: Path) -> None:
    torch.save(weights(folder), folder / BIN)
    (folder / SAFE).unlink()
    open_model(folder)


@pytest.mark.parametrize("how", ["zip", "old", "raw", "object in the place of the weights"])
def test_code_in_a_bin_file_is_not_run(folder: Path, how: str) -> None:
    state: Any = weights(folder) | {"x": Trap(folder / "sprung")}
    (folder / SAFE).unlink()
    if how == "raw":
        (folder / BIN).write_bytes(pickle.dumps(Trap(folder / "sprung")))
    elif how == "old":
        torch.save(state, folder / BIN, _use_new_zipfile_serialization=False)
    else:
        torch.save(state if how == "zip" else Trap(folder / "sprung"), folder / BIN)
    refused(folder, r"holds more than tensors \(.*mkdir\) and is not loaded.* get the weights as safetensors|fetch it")


def test_safetensors_are_read_and_a_pickle_beside_them_is_not(folder: Path) -> None:
    torch.save(Trap(folder / "sprung"), folder / BIN)
    open_model(folder)
    assert not (folder / "sprung").exists()


def test_code_that_a_config_names_is_not_run(folder: Path) -> None:
    config = json.loads((folder / CONFIG).read_text())
    config["auto_map"] = {"AutoModel": "evil.Model", "AutoConfig": "evil.Config"}
    (folder / CONFIG).write_text(json.dumps(config))
    (folder / "evil.py").write_text(f"import os\nos.mkdir({str(folder / 'sprung')!r})\n")
    open_model(folder)
    assert not (folder / "sprung").exists()


@pytest.mark.parametrize("file", [SAFE, BIN])
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.99])
def test_weights_cut_short(folder: Path, file: str, kept: float) -> None:
    if file == BIN:
        torch.save(weights(folder), folder / BIN)
        (folder / SAFE).unlink()
    whole = (folder / file).read_bytes()
    (folder / file).write_bytes(whole[: int(kept * len(whole))])
    refused(folder, "it is cut short or damaged: fetch it again")


def test_a_zip_bomb(folder: Path) -> None:
    (folder / SAFE).unlink()
    with zipfile.ZipFile(folder / BIN, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(5_000_000))
    refused(folder, "would unpack to 5,000,000; it is not to be trusted")


def test_numbers_that_are_not_finite(folder: Path) -> None:
    name = a_matrix(weights(folder))
    for value in (torch.nan, -torch.inf):
        rewrite(folder, **{name: torch.full_like(weights(folder)[name], value)})
        refused(folder, f"{name} has values that are not finite")


def test_other_shapes_than_the_config_says(folder: Path) -> None:
    name = a_matrix(weights(folder))
    rewrite(folder, **{name: torch.zeros(3, 5)})
    refused(folder, rf"{name} is \[3, 5\] in its file and \[.*\] by its config.json.* fetch both again")


def test_missing_weights(folder: Path) -> None:
    name = a_matrix(weights(folder))
    rewrite(folder, **{name: None})
    refused(folder, f"1 weights are not in its file, among them {name}; fetch it again")
    (folder / SAFE).unlink()
    refused(folder, f"no file named {SAFE}")


@pytest.mark.parametrize("target", ["../outside.safetensors", "/etc/passwd", "../../../../etc/passwd"])
def test_an_index_that_leads_out_of_the_folder(folder: Path, target: str) -> None:
    names = list(weights(folder))
    (folder / SAFE).rename(folder.parent / "outside.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, target)}
    (folder / f"{SAFE}.index.json").write_text(json.dumps(index))
    refused(folder, "which is no file of weights beside it; it is not to be trusted")


def test_shards(folder: Path) -> None:
    state = weights(folder)
    (folder / SAFE).unlink()
    weight_map = {}
    for number, names in enumerate((list(state)[::2], list(state)[1::2]), 1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: state[name] for name in names}, folder / file, {"format": "pt"})
        weight_map |= dict.fromkeys(names, file)
    index = folder / f"{SAFE}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    found = open_model(folder).module.state_dict()
    assert all(torch.equal(found[name], value) for name, value in state.items() if name in found)
    (folder / file).write_bytes((folder / file).read_bytes()[:-50])
    refused(folder, f"{file}: cannot be read .* fetch it again")
    (folder / file).unlink()
    refused(folder, f"names {file}, which is not there; fetch the whole folder again")
    index.write_text("{")
    refused(folder, "no index of weights")


def test_a_damaged_config(folder: Path) -> None:
    text = (folder / CONFIG).read_text()
    (folder / CONFIG).write_text(text[:-20])
    refused(folder, "not a JSON object .*; fetch it again")
    (folder / CONFIG).write_bytes(b"\xff\xfe\x00")
    refused(folder, "not a JSON object")
    width = {"hubert": "hidden_size", "encodec": "hidden_size", "whisper": "d_model"}[json.loads(text)["model_type"]]
    spoil: list[Callable[[dict[str, Any]], Any]] = [
        lambda config: config | {width: "wide"},
        lambda config: config | {width: -8},
        lambda config: config | {width: None},
    ]
    for change in spoil:
        (folder / CONFIG).write_text(json.dumps(change(json.loads(text))))
        refused(folder, "could not be opened .*check its config.json, or fetch it again")
