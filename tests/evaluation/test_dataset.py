from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from evaluation.dataset import Dataset, intervals_of, read_sounds
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
            soundfile.write(tmp_path / subset / f"{index}.wav", np.full(100, index / 20), 8000)
    (tmp_path / "empty").mkdir()
    return tmp_path


def names(dataset: Dataset, *args: object, **more: object) -> list[str]:
    return [sound.name for sound in dataset.sounds(*args, **more)]  # type: ignore[arg-type]


def test_labels_are_the_subset_and_what_cells_hold(audio: Path) -> None:
    assert Dataset(audio).subsets == ["pets", "zoo"]
    sounds = Dataset(audio).sounds(["pets"])
    assert [sound.name for sound in sounds] == ["pets/0.wav", "pets/2.wav", "pets/3.wav"]
    assert [dict(sound.labels) for sound in sounds] == [
        {"subset": "pets", "label": "dog"},
        {"subset": "pets", "speaker": "bob"},
        {"subset": "pets", "label": "cat", "speaker": "bob"},
    ]
    assert [(sound.subset, sound.speaker) for sound in sounds] == [("pets", ""), ("pets", "bob"), ("pets", "bob")]
    assert sounds[0].path == audio / "pets" / "0.wav"
    assert sounds[0].intervals is None


def test_all_subsets_that_have_the_split(audio: Path) -> None:
    assert len(Dataset(audio).sounds()) == 6
    (audio / "zoo" / "manifest.csv").write_text(ROWS.replace("test", "valid"))
    assert {sound.subset for sound in Dataset(audio).sounds()} == {"pets"}
    with pytest.raises(AudioFileError, match="zoo: no clips of split 'test'"):
        Dataset(audio).sounds(["zoo"])
    with pytest.raises(AudioFileError, match="no clips of split 'none'"):
        Dataset(audio).sounds(split="none")


def test_a_limit_spreads_over_each_manifest(audio: Path) -> None:
    assert names(Dataset(audio), limit=2) == [f"{subset}/{index}.wav" for subset in ("pets", "zoo") for index in (0, 3)]


def test_rows_of_some_labels_are_left_out(audio: Path) -> None:
    assert names(Dataset(audio), ["pets"], leave_out=["dog", ""]) == ["pets/3.wav"]
    with pytest.raises(AudioFileError, match="no clips of split 'test'"):
        Dataset(audio).sounds(["pets"], leave_out=["dog", "", "cat"])


def test_sounds_are_read_one_by_one(audio: Path) -> None:
    (first, clip), *_ = read_sounds(Dataset(audio).sounds(["pets"], "train"))
    assert (first.name, clip.name, clip.sample_rate) == ("pets/1.wav", "pets/1.wav", 8000)
    np.testing.assert_allclose(clip.waveform[0], 0.05, atol=1 / 2**15)  # 16 bits


def test_what_is_missing_is_named_before_anything_runs(audio: Path) -> None:
    with pytest.raises(AudioFileError, match=r"chords.manifest\.csv: no such file"):
        Dataset(audio).sounds(["chords"])
    (audio / "zoo" / "3.wav").unlink()
    with pytest.raises(AudioFileError, match="manifest.csv: names 3.wav, which is not there"):
        Dataset(audio).sounds()
    (audio / "zoo" / "manifest.csv").write_text("file,kind\na,b\n")
    with pytest.raises(AudioFileError, match="zoo/manifest.csv: needs rows with the columns path"):
        Dataset(audio).sounds()
    (audio / "zoo" / "manifest.csv").write_bytes(b"path,split\n\xff,test\n")
    with pytest.raises(AudioFileError, match="zoo/manifest.csv: cannot be read"):
        Dataset(audio).sounds()


# --- recordings of other people ---


def test_a_folder_with_a_manifest_of_its_own_and_a_csv_are_one_subset(audio: Path) -> None:
    assert names(Dataset(audio / "pets"), split="train") == ["pets/1.wav"]
    (audio / "pets" / "manifest.csv").rename(audio / "pets" / "list.csv")
    assert names(Dataset(audio / "pets" / "list.csv"), split="train") == ["list/1.wav"]


def test_columns_and_splits_of_other_names(audio: Path) -> None:
    text = "file,set,sentence,client\n0.wav,dev,hello,ann\n1.wav,test,good day,bob\n"
    (audio / "pets" / "manifest.csv").write_text(text)
    columns = {"path": "file", "split": "set", "text": "sentence", "speaker": "client"}
    dataset = Dataset(audio / "pets", columns, {"valid": "dev"})
    (sound,) = dataset.sounds(split="valid", labels=("text", "speaker"))
    assert dict(sound.labels) == {"subset": "pets", "text": "hello", "speaker": "ann"}
    assert dataset.has_column("text") and not dataset.has_column("sentence")
    with pytest.raises(AudioFileError, match="needs rows with the columns path and words"):
        Dataset(audio / "zoo", {"text": "words"}).sounds()


def test_without_splits_all_clips_count_or_each_label_is_divided(audio: Path) -> None:
    rows = "path,label\n" + "".join(f"{index}.wav,{'dog' if index else 'cat'}\n" for index in range(4))
    (audio / "pets" / "manifest.csv").write_text(rows)
    assert len(Dataset(audio).sounds(["pets"], "train")) == len(Dataset(audio).sounds(["pets"], "test")) == 4
    divided = Dataset(audio, divide=True)
    assert names(divided, ["pets"], "train") == ["pets/0.wav", "pets/1.wav", "pets/3.wav"]
    assert names(divided, ["pets"], "valid") == ["pets/2.wav"]


def test_intervals(audio: Path) -> None:
    path = audio / "pets" / "intervals.csv"
    path.write_text("path,start_s,end_s,label\n2.wav,0.5,1,bark\n2.wav,0.7,2.5,purr\n")
    first, second, _ = Dataset(audio).sounds(["pets"])
    assert first.intervals == ()  # it is known that there is nothing
    assert second.intervals == ((0.5, 1.0, "bark"), (0.7, 2.5, "purr"))
    for line in ("2.wav,1,1,bark", "2.wav,x,1,bark", "2.wav,0,1,", "2.wav,0", "2.wav,0,nan,bark"):
        path.write_text(f"path,start_s,end_s,label\n2.wav,0.5,1,bark\n{line}\n")
        with pytest.raises(AudioFileError, match="intervals.csv, line 3: needs"):
            intervals_of(path)
