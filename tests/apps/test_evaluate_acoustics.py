from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]

for package in ("torchcrepe", "matplotlib", "pystoi", "pesq"):
    pytest.importorskip(package, reason="extra eval")


@pytest.fixture
def audio(sound: Callable[..., Path], tmp_path: Path) -> Path:
    """Noises, of which no pitch is measured."""
    sound("audio/esc10/0.ogg", seconds=0.5)
    (tmp_path / "audio" / "esc10" / "manifest.csv").write_text("path,split\n0.ogg,test\n")
    return tmp_path / "audio"


def test_acoustics(steer: Run, audio: Path, codec_folder: Path, sae_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    flags = ["--model", codec_folder, "--sae", sae_folder, "--subsets", "esc10", "--requests", 1]
    flags += ["--control-clips", 0, "--residual", "drop"]
    code, _, err = steer("evaluate", "acoustics", "--audio", audio, "-o", out, *flags)
    assert (code, err) == (0, "")
    report = json.loads((out / "acoustics.json").read_text())
    assert [clip["attribute"] for clip in report["clips"]] == ["loudness", "brightness"]
    assert report["about"]["residual"] == "drop"
    assert report["about"]["saes"] == {"latent": str(sae_folder)}
    assert (out / "acoustics.png").read_bytes().startswith(b"\x89PNG")
    assert "met against round trip" in (out / "acoustics.md").read_text()
    assert "1 test clips" in report["title"]


def test_residuals(steer: Run, audio: Path, codec_folder: Path, sae_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    flags = ["--model", codec_folder, "--sae", sae_folder, "--subsets", "esc10", "--requests", 1]
    code, _, err = steer("evaluate", "residuals", "--audio", audio, "-o", out, *flags)
    assert (code, err) == (0, "")
    rows = json.loads((out / "residuals.json").read_text())["rows"]
    assert {row["way"] for row in rows} == {"input", "ratio", "drop", "keep"}


@pytest.mark.parametrize("command", ["acoustics", "residuals"])
def test_a_number_of_requests_that_is_none_is_one_line(steer: Run, audio: Path, tmp_path: Path, command: str) -> None:
    for text in ("0", "some", "-1"):
        code, _, err = steer("evaluate", command, "--audio", audio, "-o", tmp_path / "out", f"--requests={text}")
        assert code == 2
        assert err == f"steer: --requests {text}: give a number from 1 on, or all\n"
        assert not (tmp_path / "out").exists()
