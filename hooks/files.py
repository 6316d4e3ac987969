"""Files: written whole or not at all, what a killed process leaves of them, whether one stayed as it was, and what
somebody names read only from what is a file."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

PARTIAL = re.compile(r"\.(.+)\.[0-9a-f]{8}\.partial")


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Gives a hidden path beside `path` to write to; renamed to `path` at the end, deleted if the block fails.

    Two that write the same file at once do not meet: the last one to end stays.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    partial.touch(exist_ok=False)
    rights = stat.S_IMODE(partial.stat().st_mode)
    try:
        yield partial
        # safetensors gives its files to their owner alone
        partial.chmod(rights)
        # else a machine that stops may keep the name and lose the content
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        with suppress(OSError):
            partial.unlink()


def write_text(path: str | Path, text: str) -> None:
    """A whole file of UTF-8; raises OSError where it cannot be written."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: str | Path, values: object) -> None:
    """A whole file of JSON, what JSON does not know as text; raises OSError where it cannot be written."""
    write_text(path, json.dumps(values, indent=2, default=str) + "\n")


UNWRITABLE = (OSError, SafetensorError)
"""What `write_tensors` raises on a full disk, or where there is no folder."""


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], **about: object) -> None:
    """A whole safetensors file; each of `about` is JSON in its metadata. Raises one of `UNWRITABLE`."""
    found = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with whole_file(path) as partial:
        save_file(found, partial, {name: json.dumps(value) for name, value in about.items()})


def clear_partials(paths: Iterable[Path]) -> int:
    """Delete what killed processes left of these files, and count it; of a folder, what they left in it.

    Nobody may be writing them.
    """
    names: dict[Path, set[str]] = {}
    whole: set[Path] = set()
    for path in paths:
        if os.path.isdir(path):  # unlike is_dir, which raises for a name that is too long
            whole.add(path)
            names.setdefault(path, set())
        names.setdefault(path.parent, set()).add(path.name)
    cleared = 0
    for folder, wanted in names.items():
        with suppress(FileNotFoundError), os.scandir(folder) as entries:
            for entry in entries:
                found = PARTIAL.fullmatch(entry.name)
                if found and (found[1] in wanted or folder in whole):
                    with suppress(FileNotFoundError):
                        os.unlink(entry.path)
                        cleared += 1
    return cleared


Stamp = tuple[int, int, int]


def stamp_of(path: str | Path) -> Stamp:
    """What tells that a file was written to: its inode, size in bytes and time of change in ns.

    Raises:
        OSError: it is gone.
    """
    status = os.stat(path)
    return status.st_ino, status.st_size, status.st_mtime_ns


# --- reading what somebody names ---


def read_text(path: str | Path, limit: int) -> str:
    """The text of a file of at most `limit` bytes.

    Raises:
        OSError: as `read_bytes`.
        ValueError: it is no UTF-8, or its name is none.
    """
    return read_bytes(path, limit).decode("utf-8-sig")


def read_bytes(path: str | Path, limit: int) -> bytes:
    """The content of a file of at most `limit` bytes.

    Raises:
        OSError: it is not there, is larger, or is not a regular file: one waits at a pipe, a device has no end.
        ValueError: its name is none.
    """
    check_regular(path)
    with open(path, "rb") as file:
        # the size is asked for first: read(limit + 1) would reserve as much memory for every file
        if os.fstat(file.fileno()).st_size > limit:
            raise OSError(errno.EFBIG, f"is larger than {limit >> 20} MiB", str(path))
        return file.read()


def check_regular(path: str | Path) -> None:
    """Raises OSError where there is not a regular file, ValueError for a name that is none."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL, "is not a regular file", str(path))
