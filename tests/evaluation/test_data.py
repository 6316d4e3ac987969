from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from evaluation.data import labelled_clips, manifest_rows
from hooks import AudioFileError


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    folder = tmp_path / "audio" / "tones"
    folder.mkdir(parents=True)
    lines = ["path,split,label"]
    for index in range(10):
        soundfile.write(folder / f"{index}.wav", np.full(100, index / 20), 8000)
        lines.append(f"{index}.wav,{'test' if index % 2 else 'train'},x")
    (folder / "manifest.csv").write_text("\n".join(lines))
    return folder.parent


def test_clips_of_a_split_only(audio: Path) -> None:
    names = [clip.name for _, clip in labelled_clips(audio, ["tones"], "test")]
    assert names == [f"tones/{index}.wav" for index in (1, 3, 5, 7, 9)]


def test_a_limit_spreads_over_the_manifest(audio: Path) -> None:
    assert [clip.name for _, clip in labelled_clips(audio, ["tones"], "test", 3)] == [
        "tones/1.wav",
        "tones/5.wav",
        "tones/9.wav",
    ]


def test_rows_of_some_labels_are_left_out(audio: Path) -> None:
    manifest = audio / "tones" / "manifest.csv"
    manifest.write_text(manifest.read_text().replace("7.wav,test,x", "7.wav,test,y"))
    chosen = labelled_clips(audio, ["tones"], "test", leave_out=["x"])
    assert [clip.name for _, clip in chosen] == ["tones/7.wav"]
    with pytest.raises(AudioFileError, match="no clips of split 'test'"):
        list(labelled_clips(audio, ["tones"], "test", leave_out=["x", "y"]))


def test_what_is_missing_is_named(audio: Path) -> None:
    with pytest.raises(AudioFileError, match=r"chords.manifest\.csv"):
        manifest_rows(audio, "chords", "test")
    with pytest.raises(AudioFileError, match="valid"):
        list(labelled_clips(audio, ["tones"], "valid"))
    (audio / "tones" / "manifest.csv").write_text("file,kind\na,b\n")
    with pytest.raises(AudioFileError, match="path and split"):
        manifest_rows(audio, "tones", "test")
