"""`steer edit` on the files that people have: MP3 to WAV, titles, files for ffmpeg, joined and cut ones."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.hard_sounds import RATE, case, encoded, tone

Edit = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture
def edit(steer: Callable[..., tuple[int, str, str]], codec_folder: Path, sae_folder: Path) -> Edit:
    """`steer edit --json` with the tiny codec: (exit code, what it prints, standard error)."""

    def run(*arguments: object) -> tuple[int, dict[str, Any], str]:
        means = ("--model", codec_folder, "--sae", sae_folder, "--clamp", "0=1.0")
        code, out, err = steer("edit", *means, *arguments, "--json")
        return code, json.loads(out) if out else {}, err

    return run


@pytest.mark.parametrize("target", ["out.wav", "out.flac", "out.ogg", "out.aiff", "out.mp3"])
def test_an_mp3_becomes_any_other_kind(target: str, edit: Edit, tmp_path: Path) -> None:
    source = case("mp3-to-wav/tone.mp3", tmp_path)
    assert edit(source, "-o", tmp_path / target)[0] == 0
    assert soundfile.info(tmp_path / target).frames == 36_000


def test_what_is_read_is_written(edit: Edit, tmp_path: Path) -> None:
    """Whole, where a header says less; told in the outcome."""
    for name, frames in (
        ("vbr-mp3/loud-first.mp3", 265_583),
        ("chained-ogg/chained.ogg", 192_000),
        ("wav-size-0/cut-off.wav", 24_000),
    ):
        source = case(name, tmp_path)
        target = tmp_path / f"out{source.suffix}"
        code, told, _ = edit(source, "-o", target)
        assert code == 0 and soundfile.info(target).frames == frames
        (note,) = told["files"][0]["notes"]
        assert "are read" in note


def test_what_was_cut_off_is_not_taken_for_whole(edit: Edit, tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(encoded(tone(7.5))[:500])
    code, _, err = edit(path, "-o", tmp_path / "out.wav")
    assert code == 2 and err.count("\n") == 1
    assert f"{path}: truncated, 228 of 180000 samples could be read" in err
    assert not (tmp_path / "out.wav").exists()


def test_titles_and_marks_go_over_or_are_told(edit: Edit, tmp_path: Path) -> None:
    source = case("metadata-lost/take.wav", tmp_path)
    code, told, _ = edit(source, "-o", tmp_path / "out.wav")
    assert code == 0 and told["files"][0]["notes"] == []
    assert soundfile.SoundFile(tmp_path / "out.wav").copy_metadata() == {"title": "Take 3"}
    assert b"cue " in (tmp_path / "out.wav").read_bytes()
    code, told, _ = edit(source, "-o", tmp_path / "out.flac")
    assert code == 0 and told["files"][0]["notes"] == ["not carried over to FLAC: cue marks"]


class TestFfmpeg:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        folder = tmp_path / "in"
        folder.mkdir()
        soundfile.write(folder / "a.wav", tone(1), RATE)
        (folder / "b.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
        (folder / "notes.txt").write_text("no sound")
        return folder

    @pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
    def test_a_folder_with_files_that_only_it_decodes(self, folder: Path, edit: Edit, tmp_path: Path) -> None:
        soundfile.write(tmp_path / "c.wav", np.stack([tone(1)] * 2, axis=1), RATE)
        command = ["ffmpeg", "-v", "error", "-y", "-i", str(tmp_path / "c.wav"), str(folder / "b.m4a")]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        code, told, _ = edit(folder, "-o", tmp_path / "out")
        assert code == 0 and told["report"]["done"] == 2
        info = soundfile.info(tmp_path / "out" / "b.m4a.wav")
        assert (info.channels, info.subtype, round(info.duration, 1)) == (2, "PCM_16", 1.0)

    def test_without_it_they_are_counted_as_failed(
        self, folder: Path, edit: Edit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("hooks.ffmpeg.shutil.which", lambda name: None)
        code, told, _ = edit(folder, "-o", tmp_path / "out")
        assert (code, told["report"]["done"], told["report"]["failed"]) == (1, 1, 1)
        (failure,) = told["report"]["failures"]
        assert (
            failure["source"].endswith("b.m4a") and "ffmpeg, which is not installed; install ffmpeg" in failure["error"]
        )
        assert [path.name for path in (tmp_path / "out").glob("*.wav")] == ["a.wav"]
