"""Kinds of sound files that can be written, and copies of files."""

from __future__ import annotations

import shutil
from pathlib import Path

import soundfile

from hooks.clip import AudioInfo, check_target
from hooks.errors import AudioFileError
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
