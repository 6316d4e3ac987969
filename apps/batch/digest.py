"""Digests, that tell whether a file, or what is done with it, is the same as before."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from hooks import AudioFileError
from steer.recipe import Recipe, path_in

BLOCK = 2**20


def digest(path: Path) -> str:
    """Of a file's bytes (BLAKE2b, 128 bits).

    Raises:
        AudioFileError: it cannot be read.
    """
    total = hashlib.blake2b(digest_size=16)
    try:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                total.update(block)
    except OSError as error:
        raise AudioFileError(f"{path}: cannot be read ({error.strerror or error})") from error
    return total.hexdigest()


def size_and_time(path: Path) -> tuple[int, int]:
    """In bytes and ns.

    Raises:
        AudioFileError: it cannot be read.
    """
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise AudioFileError(f"{path}: no such file") from error
    except OSError as error:
        raise AudioFileError(f"{path}: cannot be read ({error.strerror or error})") from error
    return status.st_size, status.st_mtime_ns


def fingerprint(recipe: Recipe | None, **options: Any) -> str:
    """Of all that decides on an output beside the source: a recipe, what the files that it names hold, and options.

    Raises:
        AudioFileError: a file that it names cannot be read.
    """
    values = recipe.to_dict() if recipe else {}
    named = [] if recipe is None else [recipe.model, *recipe.saes.values(), *(edit.shift for edit in recipe.edits)]
    files = {source: held(Path(path_in(recipe.located(source))[1])) for source in named if recipe and source}
    text = json.dumps([values, files, options], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def held(path: Path) -> list[str]:
    """Digests of a file, or of the files in a folder; none of a name that is no path."""
    if path.is_file():
        return [digest(path)]
    if path.is_dir():
        return [f"{one.name} {digest(one)}" for one in sorted(path.iterdir()) if one.is_file()]
    return []
