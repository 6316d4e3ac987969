from __future__ import annotations

from pathlib import Path

import pytest

from evaluation.labels import intervals_of, labelled_sounds, subsets_in
from hooks import AudioFileError

ROWS = """path,split,label,speaker
0.wav,test,dog,
1.wav,train,dog,ann
2.wav,test,,bob
3.wav,test,cat,bob
"""


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    for subset in ("pets", "zoo"):
        (tmp_path / subset).mkdir()
        (tmp_path / subset / "manifest.csv").write_text(ROWS)
        for index in range(4):
            (tmp_path / subset / f"{index}.wav").touch()
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_labels_are_the_subset_and_what_cells_hold(audio: Path) -> None:
    assert subsets_in(audio) == ["pets", "zoo"]
    sounds = labelled_sounds(audio, ["pets"])
    assert [sound.name for sound in sounds] == ["pets/0.wav", "pets/2.wav", "pets/3.wav"]
    assert [dict(sound.labels) for sound in sounds] == [
        {"subset": "pets", "label": "dog"},
        {"subset": "pets", "speaker": "bob"},
        {"subset": "pets", "label": "cat", "speaker": "bob"},
    ]
    assert sounds[0].source == audio / "pets" / "0.wav"
    assert sounds[0].intervals is None


def test_all_subsets_that_have_the_split(audio: Path) -> None:
    assert len(labelled_sounds(audio)) == 6
    assert [sound.name for sound in labelled_sounds(audio, limit=2)] == [
        f"{subset}/{index}.wav" for subset in ("pets", "zoo") for index in (0, 3)
    ]
    (audio / "zoo" / "manifest.csv").write_text(ROWS.replace("test", "valid"))
    assert {sound.labels["subset"] for sound in labelled_sounds(audio)} == {"pets"}
    with pytest.raises(AudioFileError, match="zoo: no clips of split 'test'"):
        labelled_sounds(audio, ["zoo"])
    with pytest.raises(AudioFileError, match="no clips of split 'none'"):
        labelled_sounds(audio, split="none")


def test_a_missing_clip_is_named_before_anything_runs(audio: Path) -> None:
    (audio / "zoo" / "3.wav").unlink()
    with pytest.raises(AudioFileError, match="manifest.csv: names 3.wav, which is not there"):
        labelled_sounds(audio)


def test_intervals(audio: Path) -> None:
    path = audio / "pets" / "intervals.csv"
    path.write_text("path,start_s,end_s,label\n2.wav,0.5,1,bark\n2.wav,0.7,2.5,purr\n")
    first, second, _ = labelled_sounds(audio, ["pets"])
    assert first.intervals == ()  # it is known that there is nothing
    assert second.intervals == ((0.5, 1.0, "bark"), (0.7, 2.5, "purr"))
    for line in ("2.wav,1,1,bark", "2.wav,x,1,bark", "2.wav,0,1,", "2.wav,0", "2.wav,0,nan,bark"):
        path.write_text(f"path,start_s,end_s,label\n2.wav,0.5,1,bark\n{line}\n")
        with pytest.raises(AudioFileError, match="intervals.csv, line 3: needs"):
            intervals_of(path)
