from __future__ import annotations

from pathlib import Path

import pytest

from apps.first_edit import EDITS, demo
from apps.samples import sung_phrase
from hooks import read_clip, write_clip


def test_the_demo_writes_what_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for package in ("torchcrepe", "matplotlib"):
        pytest.importorskip(package, reason="extra eval")
    voice = sung_phrase(note_s=0.3)
    write_clip(voice, tmp_path / "voice.wav")
    demo(tmp_path / "voice.wav", tmp_path / "demo")
    printed = capsys.readouterr().out
    for name in EDITS:
        edited = read_clip(tmp_path / "demo" / f"{name}.wav")
        assert edited.waveform.shape == voice.waveform.shape
        assert (tmp_path / "demo" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f"-o {tmp_path / 'demo' / name}.wav" in printed
    assert "requested" in printed
