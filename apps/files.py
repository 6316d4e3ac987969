"""Files that a command writes, whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hooks import AudioFileError, AudioSteerError
from hooks.clip import check_target
from hooks.files import whole_file


def make_folder(folder: Path) -> None:
    """Raises AudioFileError if it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AudioFileError(f"{folder}: the folder cannot be made ({error.strerror})") from error


def write_result(path: Path, write: Callable[[Path], object], force: bool) -> None:
    """Let `write(partial)` write a result that appears whole or not at all.

    Raises:
        AudioFileError: it exists (without `force`) or cannot be written.
    """
    check_target(path, force)
    try:
        with whole_file(path) as partial:
            write(partial)
    except OSError as error:
        raise AudioFileError(f"{path}: could not be written ({error.strerror or error})") from error


def to_json(value: object) -> str:
    """JSON for machines: NaN and infinity, which JSON does not know, become null."""
    return json.dumps(json.loads(json.dumps(value), parse_constant=lambda name: None), indent=2)


def told(error: Exception) -> str:
    """An error in one line; those that are not AudioSteer's own say what they are."""
    if isinstance(error, AudioSteerError):
        return str(error)
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


@contextmanager
def results_in(out: Path) -> Iterator[None]:
    """Makes the folder before the work is done, and takes it away again if that fails with nothing in it.

    Raises:
        AudioFileError: it cannot be made.
    """
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    make_folder(out)
    try:
        yield
    except BaseException:
        for folder in made:
            with suppress(OSError):  # it holds something
                folder.rmdir()
        raise
