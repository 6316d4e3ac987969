"""Files that a command reads and writes: what to do with which, and results that appear whole or not at all."""

from __future__ import annotations

import glob
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import soundfile

from hooks import AudioFileError, AudioSteerError
from hooks.clip import AudioInfo, check_target
from hooks.files import whole_file

FORMATS = {
    ".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".oga": "OGG", ".opus": "OGG", ".mp3": "MP3", ".aif": "AIFF",
    ".aiff": "AIFF", ".aifc": "AIFF", ".au": "AU", ".caf": "CAF", ".w64": "W64", ".rf64": "RF64",
}  # fmt: skip
"""Endings of sound files that can be read and written, and libsndfile's name of the format."""


@dataclass(frozen=True)
class Job:
    """One file to read and the one to write, and a picture if one is wanted."""

    source: Path
    target: Path
    picture: Path | None = None


def plan_jobs(inputs: Sequence[str], output: Path, plot: Path | None = None) -> tuple[list[Job], bool]:
    """What to read and where to write it, and whether that is a batch (several files, a folder or a glob).

    A batch keeps the tree below each folder or glob in the folder `output`, and pictures in the folder `plot`; a single
    file goes to `output`, or into it where it is a folder.

    Raises:
        AudioFileError: an input that holds no sound files, an `output` that is a file in a batch, or two files for one
            place.
    """
    batch = len(inputs) > 1 or Path(inputs[0]).is_dir() or is_glob(inputs[0])
    if not batch:
        source = Path(inputs[0])
        return [Job(source, output / source.name if output.is_dir() else output, plot)], False
    if output.is_file():
        raise AudioFileError(f"{output}: is a file; several inputs need a folder to write to")
    jobs: dict[Path, Job] = {}
    for text in inputs:
        root, found = sources_of(text)
        # the output may lie inside a folder that is edited
        found = [source for source in found if output.resolve() not in source.resolve().parents]
        if not found:
            raise AudioFileError(f"{text}: no sound files there ({', '.join(FORMATS)})")
        for source in found:
            name = source.relative_to(root)
            target = output / name
            if target in jobs and jobs[target].source != source:
                raise AudioFileError(f"{source} and {jobs[target].source} would both be written to {target}")
            jobs[target] = Job(source, target, plot / name.with_name(f"{name.name}.png") if plot else None)
    return list(jobs.values()), True


def is_glob(text: str) -> bool:
    return glob.has_magic(text) and not Path(text).exists()


def sources_of(text: str) -> tuple[Path, list[Path]]:
    """The files that an input stands for, and the folder whose tree is kept."""
    path = Path(text)
    if path.is_dir():
        return path, sorted(p for p in path.rglob("*") if p.suffix.lower() in FORMATS and not p.name.startswith("."))
    if not is_glob(text):
        return path.parent, [path]
    parts = path.parts
    root = Path(*parts[: next(index for index, part in enumerate(parts) if glob.has_magic(part))])
    found = (Path(name) for name in sorted(glob.glob(text, recursive=True)))
    return root, [p for p in found if p.is_file() and p.suffix.lower() in FORMATS]


def sounds_of(inputs: Sequence[str]) -> list[Path]:
    """All files that several inputs stand for.

    Raises:
        AudioFileError: an input that holds no sound files.
    """
    paths: dict[Path, None] = {}
    for text in inputs:
        found = sources_of(text)[1]
        if not found:
            raise AudioFileError(f"{text}: no sound files there ({', '.join(FORMATS)})")
        paths |= dict.fromkeys(found)
    if not paths:
        raise AudioFileError("no sound files were given")
    return list(paths)


def kind_of(info: AudioInfo, target: Path) -> tuple[str, str]:
    """Format and subtype for `target`: the source's own if the endings are the same, else as near as can be.

    Raises:
        AudioFileError: an ending that is not known.
    """
    ending = target.suffix.lower()
    if ending == info.path.suffix.lower():
        return info.format, info.subtype
    if not ending:
        raise AudioFileError(f"{target}: no such folder, and no ending that says what kind of sound file it shall be")
    if ending not in FORMATS:
        raise AudioFileError(f"{target}: unknown kind of sound file {ending!r}; there are {', '.join(FORMATS)}")
    name = FORMATS[ending]
    if ending == ".opus":
        return name, "OPUS"
    if soundfile.check_format(name, info.subtype):
        return name, info.subtype
    if soundfile.check_format(name, "PCM_24") and info.subtype in ("PCM_32", "FLOAT", "DOUBLE"):
        return name, "PCM_24"
    return name, soundfile.default_subtype(name)


def make_folder(folder: Path) -> None:
    """Raises AudioFileError if it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AudioFileError(f"{folder}: the folder cannot be made ({error.strerror})") from error


def copy_file(source: Path, target: Path, force: bool) -> None:
    """Copy a file's bytes; raises AudioFileError as `create_audio` does."""
    check_target(target, force)
    if target.exists() and source.samefile(target):
        return
    try:
        with whole_file(target) as partial:
            shutil.copyfile(source, partial)
    except OSError as error:
        raise AudioFileError(f"{target}: could not be written ({error.strerror or error})") from error


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
