"""Which files the arguments of a command stand for."""

from __future__ import annotations

import json
from pathlib import Path, PurePath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps import inputs
from apps.inputs import Input, ManifestError, inputs_of, is_below, sounds_of
from hooks import AudioFileError

NAMES = ("a.wav", "B.WAV", "deep/c.flac", "deep/er/d.Mp3", ".hidden.wav", "notes.txt", "none")
SOUNDS = ["B.WAV", "a.wav", "deep/c.flac", "deep/er/d.Mp3"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in NAMES:
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "in" / "takes.wav").mkdir()
    return tmp_path / "in"


def names_of(*texts: object) -> list[str]:
    return [one.name.as_posix() for one in inputs_of([str(text) for text in texts])[0]]


def manifest(folder: Path, text: str | bytes, name: str = "list.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def lines(*rows: object) -> str:
    return "".join(f"{json.dumps(row)}\n" for row in rows)


# --- folders and globs ---


def test_a_folder_gives_its_sounds_and_their_tree(folder: Path) -> None:
    found, is_batch = inputs_of([str(folder)])
    assert [one.name.as_posix() for one in found] == SOUNDS
    assert is_batch and all(one == Input(folder / one.name, one.name, folder) for one in found)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.wav", ["a.wav"]),
        ("*", ["B.WAV", "a.wav"]),
        ("**", SOUNDS),
        ("**/*.[fM]*", ["deep/c.flac", "deep/er/d.Mp3"]),
        ("deep/*/?.Mp3", ["er/d.Mp3"]),
    ],
)
def test_a_glob_keeps_the_tree_below_its_first_pattern(folder: Path, pattern: str, names: list[str]) -> None:
    found, is_batch = inputs_of([str(folder / pattern)])
    assert is_batch and [one.name.as_posix() for one in found] == names
    assert all(one.folder / one.name == one.source and one.source.is_file() for one in found)


def test_a_glob_in_the_current_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert names_of("*.wav") == ["a.wav"]
    assert names_of("../in/*.wav") == ["a.wav"]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path: Path) -> None:
    for name in ("take[1].wav", "take1.wav"):
        (tmp_path / name).touch()
    found, is_batch = inputs_of([str(tmp_path / "take[1].wav")])
    assert [one.source.name for one in found] == ["take[1].wav"] and not is_batch


def test_a_plain_file_is_told_of_when_it_is_read_and_is_no_batch(tmp_path: Path) -> None:
    assert inputs_of([str(tmp_path / "none.wav")]) == (
        [Input(tmp_path / "none.wav", Path("none.wav"), tmp_path)],
        False,
    )
    assert inputs_of([str(tmp_path / "a.wav"), str(tmp_path / "b.wav")])[1]


def test_what_is_named_twice_is_done_once(folder: Path) -> None:
    assert names_of(folder, folder / "a.wav", folder / "*.wav") == SOUNDS
    # once for each place in the tree, and one sound
    twice = [str(folder), str(folder / "deep")]
    assert len(inputs_of(twice)[0]) == len(SOUNDS) + 2 and len(sounds_of(twice)) == len(SOUNDS)


@pytest.mark.parametrize("text", ["", "*.ogg", "none/**"])
def test_nothing_there_is_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(AudioFileError, match="no sound files there"):
        inputs_of([str(tmp_path / text)])
    with pytest.raises(AudioFileError, match="no sound files were given"):
        inputs_of([])


# --- manifests ---


def test_csv_as_spreadsheets_write_it(tmp_path: Path) -> None:
    text = '\ufeffid,path,output,recipe\r\n1,"a, b.wav","x/""1"".wav",r.yaml\r\n2,deep/c.wav,,\r\n\r\n3,d.wav\r\n'
    found, is_batch = inputs_of([str(manifest(tmp_path, text))])
    assert is_batch
    assert found == [
        Input(tmp_path / "a, b.wav", Path('x/"1".wav'), tmp_path, tmp_path / "r.yaml"),
        Input(tmp_path / "deep/c.wav", Path("deep/c.wav"), tmp_path),
        Input(tmp_path / "d.wav", Path("d.wav"), tmp_path),
    ]


def test_jsonl_with_recipes_inside(tmp_path: Path) -> None:
    recipe = {"goals": {"loudness": "+3dB"}}
    rows = lines({"path": "a.wav", "recipe": recipe, "n": 1}, {"path": "b.wav", "recipe": "starter:asr/false-alarms"})
    found, _ = inputs_of([str(manifest(tmp_path, f"\ufeff{rows}\n  \n", "LIST.JSONL"))])
    assert [one.recipe for one in found] == [recipe, Path("starter:asr/false-alarms")]


@pytest.mark.parametrize("name", ["list.csv", "list.jsonl"])
@pytest.mark.parametrize("mark", ["\u2028", "\x85", "\x0b", "\x1c", "é", " "])
def test_names_with_marks_that_python_takes_for_ends_of_lines(tmp_path: Path, name: str, mark: str) -> None:
    named = f"a{mark}b.wav"
    row = json.dumps({"path": named}, ensure_ascii=False)
    assert names_of(manifest(tmp_path, f"path\n{named}\n" if name.endswith("csv") else f"{row}\n", name)) == [named]


def test_paths_above_the_manifest_lose_their_folders_in_the_output(tmp_path: Path) -> None:
    rows = lines({"path": "../up/a.wav"}, {"path": "/far/b.wav"}, {"path": "./c.wav"})
    found, _ = inputs_of([str(manifest(tmp_path, rows, "list.jsonl"))])
    assert [one.name.as_posix() for one in found] == ["a.wav", "b.wav", "c.wav"]
    assert found[1].source == Path("/far/b.wav")


@pytest.mark.parametrize("name", ["/a.wav", "../a.wav", "x/../../a.wav", ".", "a\0.wav", "\ud800.wav"])
def test_an_output_outside_the_output_folder(tmp_path: Path, name: str) -> None:
    path = manifest(tmp_path, lines({"path": "a.wav"}, {"path": "a.wav", "output": name}), "list.jsonl")
    with pytest.raises(ManifestError, match="line 2: output .* is not a path below the output folder"):
        inputs_of([str(path)])


@pytest.mark.parametrize("name", ["C:\\a.wav", "C:a.wav", "\\a.wav", "\\\\host\\share\\a.wav", "x\\..\\..\\a.wav"])
def test_an_output_outside_on_windows(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(inputs, "PurePath", PureWindowsPath)
    assert not is_below(name) and is_below("x\\a.wav")


@given(st.text(st.sampled_from("a./\\:~ ") | st.characters(), max_size=8))
def test_what_is_below_stays_below(name: str) -> None:
    if is_below(name):
        parts = PurePath(name).parts
        assert parts and ".." not in parts and Path("/out").joinpath(name).is_relative_to("/out")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.csv", "file\na.wav\n", "has no column path; its columns are file"),
        ("a.csv", "", "has no column path"),
        ("a.csv", "path,output\na.wav,\n ,b.wav\n", "line 3: there is no path"),
        ("a.csv", "path,output\n" + "x" * 200_000, "no CSV"),
        ("a.csv", b"path\n\xff\xfe.wav\n", "not UTF-8"),
        ("a.jsonl", '{"path": "a.wav"}\n\n{"path"\n', "line 3: no JSON"),
        ("a.jsonl", "[" * 100_000, "line 1: no JSON"),
        ("a.jsonl", '["a.wav"]\n', "line 1: holds no keys"),
        ("a.jsonl", '{"path": NaN}\n', "line 1: there is no path"),
        ("a.jsonl", '{"path": "a\\u0000.wav"}\n', "line 1: path .* cannot be the name of a file"),
        ("a.jsonl", '{"path": "\\ud800.wav"}\n', "line 1: path .* cannot be the name of a file"),
        ("a.jsonl", '{"path": "a.wav", "output": 3}\n', "line 1: output 3 is not a path"),
        ("a.jsonl", '{"path": "a.wav", "recipe": NaN}\n', "line 1: recipe is neither a file nor keys and values"),
        ("a.jsonl", "\n", "no sound files there"),
    ],
)
def test_manifests_that_make_no_sense(tmp_path: Path, name: str, text: str | bytes, told: str) -> None:
    with pytest.raises((ManifestError, AudioFileError), match=told) as error:
        inputs_of([str(manifest(tmp_path, text, name))])
    assert str(error.value).startswith(str(tmp_path / name)) and "\n" not in str(error.value)


def test_a_manifest_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="none.csv: cannot be read \\(No such file"):
        inputs_of([str(tmp_path / "none.csv")])


# --- a manifest beside other arguments ---


@pytest.mark.parametrize("manifest_first", [True, False])
def test_a_manifest_gives_a_file_of_a_folder_its_recipe(folder: Path, manifest_first: bool) -> None:
    listed = manifest(folder, "path,recipe\na.wav,r.yaml\n")
    texts = [str(listed), str(folder)]
    found, _ = inputs_of(texts if manifest_first else texts[::-1])
    assert {one.name.as_posix(): one.recipe for one in found} == {
        **dict.fromkeys(SOUNDS),
        "a.wav": folder / "r.yaml",
    }


def test_a_row_listed_twice(tmp_path: Path) -> None:
    assert names_of(manifest(tmp_path, "path,recipe\na.wav,r.yaml\na.wav,r.yaml\na.wav,\n")) == ["a.wav"]
    with pytest.raises(ManifestError, match="a.wav: is listed twice, with two recipes"):
        inputs_of([str(manifest(tmp_path, "path,recipe\na.wav,r.yaml\na.wav,s.yaml\n"))])
    assert names_of(manifest(tmp_path, "path,output,recipe\na.wav,1.wav,r.yaml\na.wav,2.wav,s.yaml\n")) == [
        "1.wav",
        "2.wav",
    ]
