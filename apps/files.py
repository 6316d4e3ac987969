"""Files that a command writes: of which kind, and whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import soundfile

from hooks import AudioFileError, AudioSteerError
from hooks.clip import AudioInfo, check_target
from hooks.files import Stamp, stamp_of, whole_file

FORMATS = {
    ".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".oga": "OGG", ".opus": "OGG", ".mp3": "MP3", ".aif": "AIFF",
    ".aiff": "AIFF", ".aifc": "AIFF", ".au": "AU", ".caf": "CAF", ".w64": "W64", ".rf64": "RF64",
}  # fmt: skip
"""Endings of sound files that can be read and written, and libsndfile's name of the format."""


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


def copy_file(source: Path, target: Path, force: bool, stamp: Stamp | None = None) -> None:
    """Copy a file's bytes; raises AudioFileError as `create_audio` does, or if the source is not what `stamp` tells."""
    check_target(target, force)
    if target.exists() and source.samefile(target):
        return
    try:
        with whole_file(target) as partial:
            shutil.copyfile(source, partial)
            if stamp is not None and stamp_of(source) != stamp:
                raise AudioFileError(f"{source}: was changed while it was read")
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
