"""What a command's arguments stand for: files, folders, globs, and manifests (CSV or JSONL) with a row for each file.

A manifest's rows have a `path`, relative to the manifest, and may have an `output` (below the output folder; by default
the path) and a `recipe`: a file, relative to the manifest too, or (in JSONL) the recipe itself. Other columns are left
alone.
"""

from __future__ import annotations

import csv
import glob
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from hooks import AudioFileError, AudioSteerError
from hooks.errors import shortened
from hooks.ffmpeg import ENDINGS
from hooks.files import read_text
from hooks.sound_files import FORMATS
from steer.starter import is_recipe_name

READ = {*FORMATS, *ENDINGS}
MANIFESTS = (".csv", ".jsonl")
MAX_BYTES = 2**30
"""A manifest of millions of files is smaller."""


class ManifestError(AudioSteerError):
    """A manifest that cannot be read, or a row of it that makes no sense."""


@dataclass(frozen=True)
class Input:
    """A sound file, and its place in the tree below the folder, glob or manifest that named it.

    `recipe` is its own one: a file, or plain values whose paths are relative to `folder`.
    """

    source: Path
    name: Path
    folder: Path
    recipe: Path | Mapping[str, Any] | None = None


def inputs_of(texts: Sequence[str]) -> tuple[list[Input], bool]:
    """All files that the arguments stand for, each once, and whether they are a batch (more than one plain file).

    A file that a folder holds and a manifest lists has the manifest's recipe.

    Raises:
        AudioFileError: nothing was given, or an argument that holds no sound files.
        ManifestError: a manifest that cannot be read, a row of it that makes no sense, or two recipes for one output.
    """
    inputs: dict[tuple[Path, Path], Input] = {}
    for text in texts:
        found = list(found_by(text))
        if not found:
            raise AudioFileError(
                f"{text}: no sound files there ({', '.join(FORMATS)}; with ffmpeg {', '.join(ENDINGS)})"
            )
        for one in found:
            before = inputs.setdefault((one.source, one.name), one)
            if one.recipe is None or one.recipe == before.recipe:
                continue
            if before.recipe is not None:
                raise ManifestError(f"{one.source}: is listed twice, with two recipes; give each an output of its own")
            inputs[one.source, one.name] = one
    if not inputs:
        raise AudioFileError("no sound files were given")
    path = Path(texts[0])
    return list(inputs.values()), len(texts) > 1 or os.path.isdir(path) or is_manifest(path) or is_glob(texts[0])


def sounds_of(texts: Sequence[str]) -> list[Path]:
    """The files alone; raises as `inputs_of`."""
    return list(dict.fromkeys(one.source for one in inputs_of(texts)[0]))


def found_by(text: str) -> Iterator[Input]:
    path = Path(text)
    if os.path.isdir(path):  # unlike is_dir, which raises for a name that is too long
        for found in sorted(path.rglob("*")):
            if is_sound(found):
                yield Input(found, found.relative_to(path), path)
    elif is_manifest(path):
        yield from manifest(path)
    elif is_glob(text):
        parts = path.parts
        root = Path(*parts[: next(index for index, part in enumerate(parts) if glob.has_magic(part))])
        for found in map(Path, sorted(glob.glob(text, recursive=True))):
            if is_sound(found):
                yield Input(found, found.relative_to(root), root)
    else:
        yield Input(path, Path(path.name), path.parent)


def is_glob(text: str) -> bool:
    return glob.has_magic(text) and not os.path.exists(text)


def is_manifest(path: Path) -> bool:
    return path.suffix.lower() in MANIFESTS


def is_sound(path: Path) -> bool:
    """Whether it has the ending of a sound or a video file. Those that only ffmpeg decodes are among them: without it
    they are files that failed, which say so, and not files that were left out."""
    return path.suffix.lower() in READ and not path.name.startswith(".") and not path.is_dir()


def written_as(name: Path) -> Path:
    """The name of an output: that of the input, with .wav behind it where files of that kind can only be read."""
    return name.with_name(f"{name.name}.wav") if name.suffix.lower() in ENDINGS else name


# --- manifests ---


def manifest(path: Path) -> Iterator[Input]:
    """The rows of a manifest.

    Raises:
        ManifestError: it cannot be read, or a row names no file or an output outside the output folder.
    """
    try:
        text = read_text(path, MAX_BYTES)
    except (OSError, ValueError) as error:
        raise ManifestError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or 'not UTF-8'})") from error
    rows = csv_rows(path, text) if path.suffix.lower() == ".csv" else json_rows(path, text)
    for line, row in rows:
        where = f"{path}, line {line}"
        named = row.get("path")
        if not isinstance(named, str) or not named.strip():
            raise ManifestError(f"{where}: there is no path; a row has path, and may have output and recipe")
        if not can_be_named(named):
            raise ManifestError(f"{where}: path {shortened(repr(named))} cannot be the name of a file")
        name = row.get("output") or named
        if not isinstance(name, str) or not is_below(name):
            if row.get("output"):
                raise ManifestError(f"{where}: output {shortened(repr(name))} is not a path below the output folder")
            name = PurePath(named).name
        yield Input(path.parent / named, Path(name), path.parent, own_recipe(where, row.get("recipe"), path.parent))


def is_below(name: str) -> bool:
    pure = PurePath(name)
    # C:a and \\a are not absolute on Windows and leave the folder all the same
    return bool(pure.parts) and not pure.anchor and ".." not in pure.parts and can_be_named(name)


def can_be_named(text: str) -> bool:
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:  # half a character, which JSON can write
        return False


def own_recipe(where: str, recipe: Any, folder: Path) -> Path | Mapping[str, Any] | None:
    if recipe is None or recipe == "":
        return None
    if isinstance(recipe, str):
        return Path(recipe) if is_recipe_name(recipe) else folder / recipe
    if isinstance(recipe, Mapping):
        return recipe
    raise ManifestError(f"{where}: recipe is neither a file nor keys and values")


def csv_rows(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        if "path" not in (reader.fieldnames or ()):
            raise ManifestError(
                f"{path}: has no column path; its columns are {shortened(', '.join(reader.fieldnames or ()))}"
            )
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise ManifestError(f"{path}, line {reader.line_num}: no CSV ({error})") from error


def json_rows(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    # not splitlines, which knows ends of lines that may stand in a JSON string
    for line, part in enumerate(text.split("\n"), 1):
        if not part.strip():
            continue
        try:
            row = json.loads(part)
        except (ValueError, RecursionError) as error:
            raise ManifestError(f"{path}, line {line}: no JSON ({error})") from error
        if not isinstance(row, Mapping):
            raise ManifestError(f"{path}, line {line}: holds no keys, such as path")
        yield line, row
