from __future__ import annotations

import os
from pathlib import Path

import pytest

from hooks.files import read_text


def test_text_of_at_most_a_size(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbf" + "é".encode())
    assert read_text(path, 5) == "é"
    with pytest.raises(OSError, match="is larger than"):
        read_text(path, 4)
    path.write_bytes(b"\xff")
    with pytest.raises(ValueError, match="invalid start byte"):
        read_text(path, 5)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(OSError, match="is not a regular file"):
            read_text(path, 5)
    with pytest.raises(FileNotFoundError):
        read_text(tmp_path / "none", 5)
    with pytest.raises(ValueError, match="null"):
        read_text("a\0b", 5)
