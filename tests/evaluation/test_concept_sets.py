from __future__ import annotations

from pathlib import Path

import pytest

from evaluation.concept_sets import LabelError, from_csv, from_folder


def write(path: Path, *lines: str) -> Path:
    """A CSV, and an empty file for every path in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines))
    for line in lines[1:]:
        (path.parent / line.split(",")[0]).touch()
    return path


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    head = "path,split,label,speaker"
    write(tmp_path / "esc10" / "manifest.csv", head, "a.wav,train,rain,", "b.wav,valid,dog,", "c.wav,test,rain,")
    write(tmp_path / "digits" / "manifest.csv", head, "1.wav,train,1,ann", "2.wav,test,2,bob")
    write(tmp_path / "other" / "manifest.csv", head, "x.wav,train,rain,ann")
    return tmp_path


def test_kinds_come_from_their_subsets(audio: Path) -> None:
    train, held_out = from_folder(audio, ["sound"])
    assert [(one.name, dict(one.labels)) for one in train] == [("esc10/a.wav", {"sound": "rain"})]
    assert [one.name for one in held_out] == ["esc10/b.wav", "esc10/c.wav"]
    assert [one.name for one in from_folder(audio, ["sound"], ["valid"])[1]] == ["esc10/b.wav"]


def test_a_clip_has_all_kinds_that_are_asked_for(audio: Path) -> None:
    train, held_out = from_folder(audio, ["digit", "speaker", "speech"])
    assert {one.name: dict(one.labels) for one in (*train, *held_out)} == {
        "digits/1.wav": {"digit": "1", "speaker": "ann", "speech": "yes"},
        "digits/2.wav": {"digit": "2", "speaker": "bob", "speech": "yes"},
        "esc10/a.wav": {"speech": "no"},
        "esc10/b.wav": {"speech": "no"},
        "esc10/c.wav": {"speech": "no"},
    }


def test_rooms_are_no_sounds(audio: Path) -> None:
    lines = ("hum.wav,train,noise,", "hall.wav,train,rir,")
    write(audio / "noise_rir" / "manifest.csv", "path,split,label,speaker", *lines)
    train, _ = from_folder(audio, ["speech"])
    assert [one.name for one in train if one.name.startswith("noise")] == ["noise_rir/hum.wav"]


def test_a_kind_that_is_not_there(audio: Path) -> None:
    with pytest.raises(LabelError, match="no concepts of kind 'colour'; there are sound, keyword"):
        from_folder(audio, ["colour"])
    with pytest.raises(LabelError, match="no clips of split 'train' for 'keyword'; they would be in keywords"):
        from_folder(audio, ["sound", "keyword"])


def test_csv_with_splits(tmp_path: Path) -> None:
    lines = ("a.wav,train,x,u", "b.wav,test,y,", "c.wav,valid,x,u", "d.wav,unused,x,u", "e.wav,train,,")
    path = write(tmp_path / "list.csv", "path,split,label,who", *lines)
    train, held_out = from_csv(path, ["label", "who"], ["test"])
    assert [(one.source, dict(one.labels)) for one in train] == [(tmp_path / "a.wav", {"label": "x", "who": "u"})]
    assert [(one.name, dict(one.labels)) for one in held_out] == [("b.wav", {"label": "y"})]


def test_csv_without_splits_is_halved_by_label(tmp_path: Path) -> None:
    path = write(tmp_path / "list.csv", "path,label", *(f"{i}.wav,{'x' if i < 4 else 'y'}" for i in range(7)))
    train, held_out = from_csv(path)
    assert [one.name for one in train] == ["0.wav", "2.wav", "4.wav", "6.wav"]
    assert [one.name for one in held_out] == ["1.wav", "3.wav", "5.wav"]


def test_csv_errors_are_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "list.csv", "path,label", "a.wav,x", "b.wav,y")
    (tmp_path / "b.wav").unlink()
    with pytest.raises(LabelError, match=r"list.csv: names 'b.wav', and there is no such file"):
        from_csv(path)
    with pytest.raises(LabelError, match="needs rows with the columns path and who"):
        from_csv(path, ["who"])
    with pytest.raises(LabelError, match=r"none.csv: cannot be read \(No such file"):
        from_csv(tmp_path / "none.csv")
    with pytest.raises(LabelError, match="needs rows"):
        from_csv(write(tmp_path / "empty.csv", "path,label"))
