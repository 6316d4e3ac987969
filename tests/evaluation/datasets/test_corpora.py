"""`steer manifest`: each corpus on a tiny made-up folder in its own layout."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from evaluation.dataset import Dataset
from evaluation.datasets import CORPORA
from evaluation.datasets.corpus import CorpusError, divided

Run = Callable[..., tuple[int, str, str]]


def sounds(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, np.zeros(80), 8000)


def rows_of(path: Path) -> list[dict[str, str]]:
    """The rows of a manifest, each of whose paths is there and is read by `Dataset` too."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert all((path.parent / row["path"]).is_file() for row in rows)
    dataset = Dataset(path)
    assert dataset.rows(path.stem) == rows
    assert sum(len(dataset.sounds(split=split)) for split in {row["split"] for row in rows}) == len(rows)
    return rows


def test_splits_keep_groups_apart_and_have_all_classes() -> None:
    class_of = {
        f"{one}{index}": one for one, count in (("a", 20), ("b", 3), ("c", 2), ("d", 1)) for index in range(count)
    }
    splits = divided(class_of)
    counts = Counter((class_of[group], split) for group, split in splits.items())
    assert set(splits) == set(class_of)
    assert counts == {
        ("a", "train"): 14, ("a", "valid"): 3, ("a", "test"): 3,
        ("b", "train"): 1, ("b", "valid"): 1, ("b", "test"): 1,
        ("c", "train"): 1, ("c", "test"): 1,
        ("d", "train"): 1,
    }  # fmt: skip
    assert divided(class_of) == splits
    assert divided(class_of, seed=1) != splits


# --- each corpus ---


@pytest.mark.parametrize("inner", ["", "LibriSpeech"])
def test_librispeech(steer: Run, tmp_path: Path, inner: str) -> None:
    root = tmp_path / "corpus" / inner
    for part, speaker in (("train-clean-100", 19), ("dev-clean", 84), ("test-clean", 61)):
        name = f"{speaker}-198"
        sounds(root, *(f"{part}/{speaker}/198/{name}-{index:04}.flac" for index in range(2)))
        text = f"{name}-0000 NORTHANGER ABBEY\n{name}-0001 IT'S HERE\n{name}-0002 LOST\n"
        (root / part / str(speaker) / "198" / f"{name}.trans.txt").write_text(text)
    (root / "SPEAKERS.TXT").write_text(
        ";ID  |SEX| SUBSET           |MINUTES| NAME\n"
        "19   | F | train-clean-100  | 25.19 | Kara Shallenberg\n84   | M | dev-clean | 8.02 | A | B\n"
    )
    code, out, err = steer("manifest", "librispeech", tmp_path / "corpus", "-o", tmp_path / "m.csv")
    assert code == 0
    assert "6 clips (test 2, train 2, valid 2)" in out
    assert "missing, 3 in all: train-clean-100/19/198/19-198-0002.flac" in err
    rows = rows_of(tmp_path / "m.csv")
    assert {(row["split"], row["speaker"], row["group"], row["sex"]) for row in rows} == {
        ("train", "19", "19", "F"), ("valid", "84", "84", "M"), ("test", "61", "61", "")
    }  # fmt: skip
    assert [rows[0]["text"], rows[1]["text"]] == ["northanger abbey", "it's here"]


def test_ptdb(steer: Run, tmp_path: Path) -> None:
    root = tmp_path / "SPEECH DATA"
    people = {"FEMALE": [f"F{n:02}" for n in range(1, 11)], "MALE": [f"M{n:02}" for n in range(1, 11)]}
    for sex, speakers in people.items():
        for speaker in speakers:
            sounds(root, f"{sex}/MIC/{speaker}/mic_{speaker}_sa1.wav", f"{sex}/LAR/{speaker}/lar_{speaker}_sa1.wav")
            if speaker != "M10":
                (root / sex / "REF" / speaker).mkdir(parents=True)
                (root / sex / "REF" / speaker / f"ref_{speaker}_sa1.f0").write_text("0.0 0 0.1 0.2\n")
    code, out, err = steer("manifest", "ptdb", tmp_path, "-o", tmp_path / "m.csv", "--json")
    assert code == 0, err
    assert json.loads(out)["missing"] == ["MALE/REF/M10/ref_M10_sa1.f0"]
    rows = rows_of(tmp_path / "m.csv")
    assert Counter((row["split"], row["sex"]) for row in rows) == {
        (split, sex): count for sex in "FM" for split, count in (("train", 6), ("valid", 2), ("test", 2))
    }
    assert all((tmp_path / row["f0_path"]).is_file() == (row["speaker"] != "M10") for row in rows if row["f0_path"])
    assert sum(not row["f0_path"] for row in rows) == 1
    assert {row["sentence"] for row in rows} == {"sa1"}


@pytest.mark.parametrize("version", ["0.92", "0.80"])
def test_vctk(steer: Run, tmp_path: Path, version: str) -> None:
    new = version == "0.92"
    lines = [
        ("225", "23  F    English    Southern  England"), ("226", "22  M    English    Surrey"),
        ("227", "38  M    English    Cumbria"), ("248", "23  F    Indian"),
        ("294", "33  F    American    San Francisco  (mic2 files unavailable)"),
        ("300", "23  F    American    California"),
    ]  # fmt: skip
    prefix = "p" if new else ""
    head = "ID  AGE  GENDER  ACCENTS  REGION COMMENTS\n"
    (tmp_path / "speaker-info.txt").write_text(head + "".join(f"{prefix}{n}  {rest}\n" for n, rest in lines))
    for number, _ in lines[:5]:
        name = f"p{number}/p{number}_001"
        if new:
            sounds(tmp_path / "wav48_silence_trimmed", f"{name}_mic1.flac", f"{name}_mic2.flac")
        else:
            sounds(tmp_path / "wav48", f"{name}.wav")
        (tmp_path / "txt" / f"p{number}").mkdir(parents=True)
        (tmp_path / "txt" / f"{name}.txt").write_text("Please call Stella.\n")
    code, _, err = steer("manifest", "vctk", tmp_path, "-o", tmp_path / "m.csv")
    assert code == 0
    assert "missing, 1 in all: wav48" in err and "p300" in err
    rows = {row["speaker"]: row for row in rows_of(tmp_path / "m.csv")}
    assert len(rows) == 5  # one microphone
    assert {rows[f"p{n}"]["split"] for n in (225, 226, 227)} == {"train", "valid", "test"}
    first = {"accent": "English", "label": "English", "sex": "F", "age": "23", "region": "Southern England"}
    assert first.items() <= rows["p225"].items()
    assert (rows["p294"]["region"], rows["p248"]["region"]) == ("San Francisco", "")
    assert (rows["p248"]["text"], rows["p248"]["sentence"]) == ("Please call Stella.", "001")


def test_vocalset(steer: Run, tmp_path: Path) -> None:
    root = tmp_path / "VocalSet1-2"
    singers = [f"{sex}{n}" for sex, count in (("female", 9), ("male", 11)) for n in range(1, count + 1)]
    for singer in singers:
        short = singer.replace("female", "f").replace("male", "m")
        sounds(root / "FULL" / singer, f"arpeggios/belt/{short}_arpeggios_belt_c_a.wav")
    for name in ("female1/scales/vibrado/f1_scales_vibrado_u", "male1/long_tones/forte/m1_long_forte_o",
                 "male2/spoken/spoken/m2_spoken", "male2/spoken/spoken/._m2_spoken"):  # fmt: skip
        sounds(root / "FULL", f"{name}.wav")
    code, _, err = steer("manifest", "vocalset", tmp_path, "-o", tmp_path / "m.csv")
    assert (code, err) == (0, "")
    rows = rows_of(tmp_path / "m.csv")
    assert len(rows) == 23
    split_of = {row["speaker"]: row["split"] for row in rows}
    assert {singer for singer, split in split_of.items() if split == "test"} == {
        "female2", "female8", "male3", "male5", "male10"
    }  # fmt: skip
    assert Counter(split_of.values())["valid"] == 2
    known = {(row["speaker"], row["context"]): (row["technique"], row["label"], row["vowel"]) for row in rows}
    assert known["female1", "scales"] == ("vibrato", "vibrato", "u")
    assert known["male1", "long_tones"] == ("", "", "o")
    assert known["male2", "spoken"] == ("spoken", "spoken", "")
    (root / "test_singers_technique.txt").write_text("f1\nm11\n")
    steer("manifest", "vocalset", tmp_path, "-o", tmp_path / "m.csv", "--force")
    assert {row["speaker"] for row in rows_of(tmp_path / "m.csv") if row["split"] == "test"} == {"female1", "male11"}


def test_voxprofile(steer: Run, tmp_path: Path) -> None:
    table = tmp_path / "accent.csv"
    accents = ["North America", "English", "Irish", "Welsh", "East Asia", "Slavic"]
    with table.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["audio", "region", "part", "spk", "source"])
        for number, accent in enumerate(accents):
            corpus = ("cv", "timit")[number % 2]
            lines.writerow([f"clips/{number}.wav", accent, ("train", "dev", "test")[number % 3], f"s{number}", corpus])
            if number < 5:
                sounds(tmp_path / ("audio" if corpus == "cv" else "elsewhere"), f"clips/{number}.wav")
    names = "file=audio,accent=region,split=part,speaker=spk,corpus=source"
    flags = ("--table", table, "--columns", names, "--roots", f"timit={tmp_path / 'elsewhere'}")
    code, _, err = steer("manifest", "voxprofile", tmp_path / "audio", "-o", tmp_path / "m.csv", *flags)
    assert code == 0
    assert "missing, 1 in all: timit: clips/5.wav" in err
    rows = rows_of(tmp_path / "m.csv")
    assert [row["us_uk"] for row in rows] == ["US", "UK", "", "UK", ""]
    assert [row["us_other"] for row in rows] == ["US", "", "", "", "Other"]
    assert [row["split"] for row in rows] == ["train", "valid", "test", "train", "valid"]
    assert [row["corpus"] for row in rows] == ["cv", "timit", "cv", "timit", "cv"]


# --- mistakes ---


@pytest.mark.parametrize("name", CORPORA)
def test_a_folder_of_something_else_is_one_line(steer: Run, tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "table.csv").write_text("file,accent,split,speaker\na.wav,English,train,1\n")
    flags = ("--table", tmp_path / "table.csv") if name == "voxprofile" else ()
    for folder in (tmp_path / "in", tmp_path / "none"):
        code, out, err = steer("manifest", name, folder, "-o", tmp_path / "m.csv", *flags)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert not (tmp_path / "m.csv").exists()


def test_mistakes(steer: Run, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("name,accent\na.wav,English\n")
    target = ("-o", tmp_path / "m.csv")
    for arguments, said in (
        (
            ("timit", tmp_path),
            "unknown corpus 'timit'; there are broderick, librispeech, ptdb, vctk, vocalset, voxprofile",
        ),
        (("voxprofile", tmp_path), "pass its table with --table"),
        (("voxprofile", tmp_path, "--table", table), "no column file or split or speaker; there are name, accent"),
        (("voxprofile", tmp_path, "--table", table, "--columns", "file"), "not of the form NAME=VALUE"),
        (("voxprofile", tmp_path, "--table", table, "--columns", "sex=x"), "--columns: sex is not one of file, accent"),
        (("voxprofile", tmp_path, "--table", tmp_path / "none.csv"), "none.csv: cannot be read"),
    ):
        code, _, err = steer("manifest", *arguments, *target)
        assert (code, err.count("\n")) == (2, 1)
        assert said in err
    target[1].write_text("mine")
    assert steer("manifest", "vctk", tmp_path, *target)[0] == 2
    assert target[1].read_text() == "mine"
    with pytest.raises(CorpusError, match="unknown corpus"):
        CORPORA["none"]
