"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Gives a hidden path beside `path` to write to; renamed to `path` at the end, deleted if the block fails."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.partial")
    partial.touch()
    rights = stat.S_IMODE(partial.stat().st_mode)
    try:
        yield partial
        # safetensors gives its files to their owner alone
        partial.chmod(rights)
        os.replace(partial, path)
    finally:
        with suppress(OSError):
            partial.unlink()
