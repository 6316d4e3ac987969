from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def audio(sound: Callable[..., Path], tmp_path: Path) -> Path:
    sound("audio/notes/0.wav")
    (tmp_path / "audio" / "notes" / "manifest.csv").write_text("path,split\n0.wav,test\n")
    return tmp_path / "audio"


def test_a_codec_with_its_sae_and_one_without(
    steer: Run, audio: Path, codec_folder: Path, sae_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: None)
    flags = ("--sae", sae_folder, "--also", codec_folder, "--subsets", "notes, drums", "--clips", 1)
    code, shown, err = steer("evaluate", "reconstruction", "--audio", audio, "-o", tmp_path / "out", *flags)
    assert (code, err) == (0, "")
    assert "yardsticks: left out; ffmpeg is not installed" in shown
    assert "95 % intervals are in" in shown
    report = json.loads((tmp_path / "out" / "reconstruction.json").read_text())
    own = ["continuous", "through the SAE", "quantised"]
    other = [f"{codec_folder}: continuous", f"{codec_folder}: quantised"]
    assert [row["path"] for row in report["rows"]] == 2 * [*own, *other]
    assert [row["clips"] for row in report["rows"]] == 5 * ["notes"] + 5 * ["drums"]
    assert report["about"]["also"] == [str(codec_folder)]
    first, twin = report["rows"][0], report["rows"][3]
    assert first["mel (dB)"] == twin["mel (dB)"]
    assert "| notes | continuous | 1 |" in (tmp_path / "out" / "reconstruction.md").read_text()


def test_a_codec_without_an_sae(steer: Run, audio: Path, codec_folder: Path, tmp_path: Path) -> None:
    flags = ("--model", codec_folder, "--no-yardsticks", "--subsets", "drums", "--clips", 1)
    code, shown, _ = steer("evaluate", "reconstruction", "--audio", audio, "-o", tmp_path / "out", *flags)
    assert code == 0
    assert "yardsticks: left out; not asked for" in shown
    report = json.loads((tmp_path / "out" / "reconstruction.json").read_text())
    assert [row["path"] for row in report["rows"]] == ["continuous", "quantised"]


def test_errors_are_one_line(steer: Run, audio: Path, codec_folder: Path, tmp_path: Path) -> None:
    for flags, said in (
        (("--model", codec_folder, "--subsets", "speech"), "speech/manifest.csv: no such file"),
        (("--model", codec_folder, "--split", "valid"), "manifest.csv: no such file"),
        (("--model", "starter:asr", "--subsets", "drums"), "starter:asr: has no round trip to measure; name a codec"),
        (("--model", codec_folder, "--also", "starter:nothing"), "there is no starter model 'nothing'"),
    ):
        out = tmp_path / "out"
        code, _, err = steer("evaluate", "reconstruction", "--audio", audio, "-o", out, "--no-yardsticks", *flags)
        assert (code, err.count("\n")) == (2, 1)
        assert err.startswith("steer: ") and said in err
        assert not out.exists()
