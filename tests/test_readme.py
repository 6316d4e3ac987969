"""The README's Python runs as it stands there, with small models in the place of downloads."""

from __future__ import annotations

import re
import runpy
import shutil
from pathlib import Path

import pytest
import torch

from hooks import Clip, registry, write_clip

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def tiny_mert(folder: Path) -> Path:
    """A HuBERT of MERT's strides, as its repository names it."""
    transformers = pytest.importorskip("transformers", reason="extra ssl")
    sizes = {"hidden_size": 16, "num_hidden_layers": 8, "num_attention_heads": 2, "intermediate_size": 24}
    positions = {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
    config = transformers.HubertConfig(**sizes, **positions, conv_dim=(8,) * 7, sample_rate=24_000)
    transformers.HubertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the sounds that the README speaks of; what it downloads is made here."""
    time_N = torch.arange(36_000) / 24_000
    waveform = 0.3 * torch.sin(6.28 * 220 * (1 + time_N) * time_N)[None] * torch.linspace(1, 0.2, 36_000)
    for name in ("talk.wav", "a.wav", "b.wav", "c.wav"):
        write_clip(Clip(waveform, 24_000), tmp_path / name)
    (tmp_path / "AUDIO").mkdir()
    shutil.copy(tmp_path / "talk.wav", tmp_path / "AUDIO")
    (tmp_path / "AUDIO" / "manifest.csv").write_text("path,speech\ntalk.wav,yes\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "download", lambda repository, revision=None: tiny_mert(tmp_path / "mert"))
    return tmp_path


def test_there_are_blocks() -> None:
    assert len(BLOCKS) >= 3


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: re.sub(r"\W+", "-", block.splitlines()[0])[:40])
def test_a_block_runs(block: str, desk: Path) -> None:
    script = desk / "readme.py"
    script.write_text(block)
    runpy.run_path(str(script))
