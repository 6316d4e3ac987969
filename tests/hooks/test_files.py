from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from hooks.files import clear_partials, stamp_of, whole_file


def test_the_file_appears_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with whole_file(path) as partial:
        partial.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="stop"), whole_file(path) as partial:
        partial.write_text("half")
        raise RuntimeError("stop")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_has_the_rights_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with whole_file(tmp_path / "a.safetensors") as partial:
        save_file({"x": torch.zeros(2)}, partial)  # which makes it readable for its owner alone
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_two_that_write_the_same_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with whole_file(path) as first, whole_file(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # which ends last
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    ours, other = tmp_path / "a.wav", tmp_path / "b.wav"
    for name in (".a.wav.0123abcd.partial", ".a.wav.partial", ".b.wav.0123abcd.partial", "a.wav"):
        (tmp_path / name).touch()
    assert clear_partials([ours, ours, tmp_path / "gone" / "c.wav"]) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == [".a.wav.partial", ".b.wav.0123abcd.partial", "a.wav"]
    assert clear_partials([ours, other]) == 1
    (tmp_path / ".c.wav.0123abcd.partial").touch()
    assert clear_partials([ours, other]) == 0
    assert clear_partials([tmp_path]) == 1


def test_a_stamp_tells_that_a_file_was_written_to(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one")
    before = stamp_of(path)
    assert stamp_of(path) == before
    path.write_text("one!")
    assert stamp_of(path) != before
    with pytest.raises(FileNotFoundError):
        stamp_of(tmp_path / "b.txt")
