"""`steer convert`: files of one package as files of another."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from steer import SAE, SAEInfo

Run = Callable[..., tuple[int, str, str]]
X = torch.randn(20, 8)


@pytest.fixture
def sae(tmp_path: Path) -> Path:
    return SAE(8, 24, "topk", 3, info=SAEInfo(site="encoder.1")).save(tmp_path / "sae")


@pytest.mark.parametrize(
    ("to", "files"),
    [
        ("dictionary_learning", ["ae.pt", "config.json"]),
        ("sparsify", ["cfg.json", "sae.safetensors"]),
        ("saelens", ["cfg.json", "sae_weights.safetensors"]),
    ],
)
def test_there_and_back(steer: Run, sae: Path, to: str, files: list[str], tmp_path: Path) -> None:
    code, shown, _ = steer("convert", sae, "-o", tmp_path / "there", "--to", to, "--json")
    assert code == 0
    told = json.loads(shown)
    assert (told["files"], told["activation"], told["k"], told["site"]) == (files, "topk", 3, "encoder.1")
    code, shown, _ = steer("convert", tmp_path / "there", "-o", tmp_path / "back")
    assert code == 0
    assert "8 -> 24, topk, k=3, for saelens" in shown
    torch.testing.assert_close(SAE.load(tmp_path / "back").encode(X), SAE.load(sae).encode(X), atol=1e-5, rtol=1e-5)


def test_what_cannot_be_held_is_said(steer: Run, sae: Path, tmp_path: Path) -> None:
    code, _, told = steer("convert", sae, "-o", tmp_path / "out", "--to", "openai")
    assert (code, told.count("\n")) == (2, 1)
    assert "layer norm to the inputs of every top-k SAE" in told
    code, _, told = steer("convert", tmp_path / "nowhere", "-o", tmp_path / "out")
    assert (code, "there is no SAE" in told) == (2, True)
    for to in ("gguf", "freud"):  # the latter is read alone
        code, _, told = steer("convert", sae, "-o", tmp_path / to, "--to", to)
        assert (code, told.count("\n"), (tmp_path / to).exists()) == (2, 1, False)
        assert f"there is no format '{to}' to write; there are openai, saelens, sparsify, dictionary_learning" in told


def test_notices_and_k(steer: Run, tmp_path: Path) -> None:
    shapes = {"encoder.weight": (24, 8), "encoder.bias": (24,), "decoder.weight": (8, 24), "b_dec": (8,)}
    torch.save({name: torch.randn(shape) for name, shape in shapes.items()}, tmp_path / "ae.pt")
    code, _, told = steer("convert", tmp_path / "ae.pt", "-o", tmp_path / "out", "--k", 4)
    assert (code, SAE.load(tmp_path / "out").k) == (0, 4)
    assert "without its threshold; it runs as top-k, 4 features" in told
    assert "Traceback" not in told and "UserWarning" not in told


def test_nothing_is_overwritten_unasked(steer: Run, sae: Path, tmp_path: Path) -> None:
    code, _, told = steer("convert", sae, "-o", sae)
    assert (code, "use --force" in told) == (2, True)
    assert steer("convert", sae, "-o", sae, "--force")[0] == 0
    (tmp_path / "file").write_text("")
    code, _, told = steer("convert", sae, "-o", tmp_path / "file")
    assert (code, "is a file" in told) == (2, True)


def test_its_help_says_what_there_is(steer: Run) -> None:
    code, shown, _ = steer("convert", "--help")
    assert code == 0
    for name in ("SAELens", "dictionary_learning", "sparsify", "OpenAI", "FREUD", "whisper-sae"):
        assert name in shown
