"""Text from a path that somebody names: only from what is a file, and of a text's size."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def read_text(path: str | Path, limit: int) -> str:
    """The text of a file of at most `limit` bytes.

    Raises:
        OSError: it is not there, is larger, or is no regular file: one waits at a pipe, a device has no end.
        ValueError: it is no UTF-8, or its name is none.
    """
    check_regular(path)
    with open(path, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise OSError(errno.EFBIG, f"is larger than {limit >> 20} MiB", str(path))
    return data.decode("utf-8-sig")


def check_regular(path: str | Path) -> None:
    """Raises OSError where there is no regular file, ValueError for a name that is none."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        raise OSError(errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL, "is no regular file", str(path))
