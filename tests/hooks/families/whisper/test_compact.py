from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hooks import ModelError, open_model
from hooks.families.whisper.compact import EMBEDDING, SINUSOIDS, whole_vocabulary

model = pytest.importorskip("whisper.model", reason="opens into the package's own module (extra whisper)")
N_VOCAB = 51_864


def test_tokens_get_their_rows_and_the_others_the_last_one() -> None:
    rows_UD = torch.arange(6.0).reshape(3, 2)
    table_VD = whole_vocabulary(rows_UD, torch.tensor([1, 4]), 5)
    assert table_VD.tolist() == [[4, 5], [0, 1], [4, 5], [4, 5], [2, 3]]
    with pytest.raises(ValueError, match="3 rows for 1 tokens"):
        whole_vocabulary(rows_UD, torch.tensor([1]), 5)


@pytest.fixture(scope="module")
def whole() -> Any:
    """A Whisper whose tokens share a row, but for five."""
    torch.manual_seed(0)
    module = model.Whisper(model.ModelDimensions(80, 1500, 64, 2, 1, N_VOCAB, 448, 64, 2, 1)).eval()
    torch.nn.init.normal_(module.decoder.positional_embedding, std=0.1)
    with torch.no_grad():
        for weight in module.parameters():
            weight.copy_(weight.half())  # what the file can hold
        weight = module.decoder.token_embedding.weight
        weight[5:] = weight[5].clone()
    return module


@pytest.fixture
def folder(whole: Any, tmp_path: Path) -> Path:
    state = {key: value.half() for key, value in whole.state_dict().items() if key != SINUSOIDS}
    state[EMBEDDING] = state[EMBEDDING][:6].clone()
    state["vocabulary"] = torch.arange(5, dtype=torch.int32)
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "whisper_compact", **asdict(whole.dims)}))
    return tmp_path


def test_it_opens_as_the_module_that_it_was(whole: Any, folder: Path) -> None:
    opened = open_model(folder)
    assert opened.kind == "transcriber"
    for name, value in whole.state_dict().items():
        assert torch.equal(opened.module.state_dict()[name], value), name
    assert (folder / "model.safetensors").stat().st_size < 1e6
    text = opened.transcribe(0.1 * torch.randn(1, 16_000), sample_len=3)
    assert isinstance(text, str)


def test_files_that_do_not_fit_are_one_line(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    for change, message in (
        ({"vocabulary": torch.arange(3, dtype=torch.int32)}, "6 rows for 3 tokens"),
        ({"vocabulary": torch.tensor([0, 1, 2, 3, N_VOCAB], dtype=torch.int32)}, "out of bounds"),
        ({"extra": torch.zeros(1)}, "unknown: extra"),
    ):
        save_file({**state, **change}, folder / "model.safetensors")
        with pytest.raises(ModelError, match=message) as caught:
            open_model(folder)
        assert "\n" not in str(caught.value)
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="is called safetensors and holds something else"):
        open_model(folder)
