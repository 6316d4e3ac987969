"""Text from a path that somebody names: only from what is a file, and of a text's size."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


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
