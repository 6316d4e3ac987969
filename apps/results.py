"""What evaluators leave in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


@contextmanager
def results_in(out: Path) -> Iterator[None]:
    """Makes the folder before the work is done, and takes it away again if that fails with nothing in it.

    Raises:
        AudioFileError: it cannot be made.
    """
    from apps.files import make_folder

    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    make_folder(out)
    try:
        yield
    except BaseException:
        for folder in made:
            with suppress(OSError):  # it holds something
                folder.rmdir()
        raise
