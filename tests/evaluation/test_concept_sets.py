from __future__ import annotations

from pathlib import Path

import pytest

from evaluation.concept_sets import LabelError, concept_sets, has_pitch, has_speech
from evaluation.dataset import Dataset


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
    train, held_out = concept_sets(Dataset(audio), ["sound"])
    assert [(one.name, dict(one.labels)) for one in train] == [("esc10/a.wav", {"sound": "rain"})]
    assert [one.name for one in held_out] == ["esc10/b.wav", "esc10/c.wav"]
    assert [one.name for one in concept_sets(Dataset(audio), ["sound"], ["valid"])[1]] == ["esc10/b.wav"]


def test_a_clip_has_all_kinds_that_are_asked_for(audio: Path) -> None:
    train, held_out = concept_sets(Dataset(audio), ["digit", "speaker", "speech"])
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
    train, _ = concept_sets(Dataset(audio), ["speech"])
    assert [one.name for one in train if one.name.startswith("noise")] == ["noise_rir/hum.wav"]


def test_a_kind_that_is_not_there(audio: Path) -> None:
    with pytest.raises(LabelError, match="no concepts of kind 'colour'; there are sound, keyword"):
        concept_sets(Dataset(audio), ["colour"])
    with pytest.raises(LabelError, match="no clips of split 'train' for 'keyword'; they would be in keywords"):
        concept_sets(Dataset(audio), ["sound", "keyword"])


def test_columns_are_kinds_of_other_recordings(audio: Path) -> None:
    write(audio / "talk" / "manifest.csv", "path,split,accent,text", "a.wav,train,scots,aye", "b.wav,test,,no")
    train, held_out = concept_sets(Dataset(audio), ["accent", "other:label", "speech"])
    assert {one.name: dict(one.labels) for one in (*train, *held_out) if one.subset in ("talk", "other", "")} == {
        "talk/a.wav": {"accent": "scots", "speech": "yes"},
        "talk/b.wav": {"speech": "yes"},
        "other/x.wav": {"other:label": "rain"},
        **{f"esc10/{name}.wav": {"speech": "no"} for name in "abc"},
        **{f"digits/{name}.wav": {"speech": "yes"} for name in "12"},
    }


def test_speech_and_pitch_by_the_manifest_else_by_the_subset() -> None:
    assert has_speech({"subset": "esc10"}) is False and has_speech({"subset": "digits"}) is True
    assert has_speech({"subset": "esc10", "speech": "Yes"}) is True
    assert has_speech({"subset": "mine", "text": "hello"}) is True
    assert has_speech({"subset": "mine"}) is None and has_speech({"subset": "mine", "speech": "no"}) is False
    assert has_pitch({"subset": "mine"}) and not has_pitch({"subset": "esc10"})
    assert has_pitch({"subset": "esc10", "pitched": "yes"}) and not has_pitch({"subset": "mine", "pitched": "no"})


def test_a_csv_with_splits(tmp_path: Path) -> None:
    lines = ("a.wav,train,x,u", "b.wav,test,y,", "c.wav,valid,x,u", "d.wav,unused,x,u", "e.wav,train,,")
    path = write(tmp_path / "list.csv", "path,split,label,who", *lines)
    train, held_out = concept_sets(Dataset(path), ["label", "who"], ["test"])
    assert [(one.source, dict(one.labels)) for one in train] == [(tmp_path / "a.wav", {"label": "x", "who": "u"})]
    assert [(one.name, dict(one.labels)) for one in held_out] == [("list/b.wav", {"label": "y"})]


def test_a_csv_without_splits_is_halved_by_label(tmp_path: Path) -> None:
    path = write(tmp_path / "list.csv", "path,label", *(f"{i}.wav,{'x' if i < 4 else 'y'}" for i in range(7)))
    train, held_out = concept_sets(Dataset(path, divide=True), ["label"])
    assert sorted(one.name for one in train) == [f"list/{i}.wav" for i in (0, 2, 4, 6)]
    assert sorted(one.name for one in held_out) == [f"list/{i}.wav" for i in (1, 3, 5)]
