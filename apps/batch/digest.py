"""Digests, that tell whether a file, or what is done with it, is the same as before."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from hooks import AudioFileError
from hooks.files import Stamp, check_regular, stamp_of
from steer.recipe import VECTORS, Recipe, path_in


def digest(path: Path) -> str:
    """Of a file's bytes (BLAKE2b, 128 bits).

    Raises:
        AudioFileError: it cannot be read.
    """
    try:
        check_regular(path)
        with path.open("rb") as file:
            return hashlib.file_digest(file, partial(hashlib.blake2b, digest_size=16)).hexdigest()
    except OSError as error:
        raise AudioFileError(f"{path}: cannot be read ({error.strerror or error})") from error


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


def fingerprint(recipe: Recipe | None, *named: str, **options: Any) -> str:
    """Of all that decides on an output beside the source: a recipe, other files (or names of models), and options.

    What files and folders hold counts, not where they lie or from where they are looked at.

    Raises:
        AudioFileError: a file that is named cannot be read.
    """
    values: dict[str, Any] = {}
    if recipe:
        values = recipe.with_files(lambda source: content(recipe.located(source)))
        values["saes"] = {site: content(recipe.located(source), VECTORS) for site, source in recipe.saes.items()}
    text = json.dumps([values, [content(name) for name in named if name], options], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def content(source: str, beside: str = "") -> list[str]:
    """Digests of a file (and the one `beside` it), or of the files in a folder; a name that is no path as it is."""
    before, name, behind = path_in(source)
    path = Path(name)
    if path.is_file():
        files = [path, path.with_name(beside)] if beside else [path]
        return [before, *(known_digest(one) for one in files if one.is_file()), behind]
    if path.is_dir():
        return [f"{one.name} {known_digest(one)}" for one in sorted(path.iterdir()) if one.is_file()]
    return [source]


def known_digest(path: Path) -> str:
    """The same, and no second reading of a file that stayed as it was: many recipes may name one model."""
    try:
        return digest_at(path.absolute(), stamp_of(path))
    except OSError as error:
        raise AudioFileError(f"{path}: cannot be read ({error.strerror or error})") from error


@lru_cache(1024)
def digest_at(path: Path, stamp: Stamp) -> str:
    return digest(path)
