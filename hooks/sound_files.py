"""Kinds of sound files that can be written, and copies of files."""

from __future__ import annotations

import io
import shutil
from functools import lru_cache
from pathlib import Path

import soundfile

from hooks import ffmpeg
from hooks.clip import AudioInfo, check_target
from hooks.errors import AudioFileError
from hooks.files import Stamp, stamp_of, whole_file
from hooks.sound_writing import check_fits

FORMATS = {
    ".wav": "WAV", ".flac": "FLAC", ".ogg": "OGG", ".oga": "OGG", ".opus": "OGG", ".mp3": "MP3", ".aif": "AIFF",
    ".aiff": "AIFF", ".aifc": "AIFF", ".au": "AU", ".caf": "CAF", ".w64": "W64", ".rf64": "RF64",
}  # fmt: skip
"""Endings of sound files that can be read and written, and libsndfile's name of the format."""


WIDE = ("PCM_32", "FLOAT", "DOUBLE", "PCM_24", "ALAC_24", "ALAC_32")
"""Subtypes with more than 16 bits."""


def kind_of(info: AudioInfo, target: Path) -> tuple[str, str]:
    """As `nearest_kind`; raises AudioFileError too where such a file cannot hold so many samples."""
    kind = nearest_kind(info, target)
    check_fits(target, *kind, info.channels, info.frames)
    return kind


def nearest_kind(info: AudioInfo, target: Path) -> tuple[str, str]:
    """Format and subtype for `target`: the source's own if the endings are the same, else as near as can be written
    with the source's rate and channels.

    Raises:
        AudioFileError: an ending that is not known or cannot be written, or a format that takes neither the rate nor
            the channels.
    """
    ending = target.suffix.lower()
    if ending == info.path.suffix.lower() and info.decoded is None:
        return info.format, info.subtype
    if not ending:
        raise AudioFileError(f"{target}: no such folder, and no ending that says what kind of sound file it shall be")
    if ending in ffmpeg.ENDINGS:
        raise AudioFileError(f"{target}: {ending} files can be read, but not written; use .wav, .flac or .ogg")
    if ending not in FORMATS:
        raise AudioFileError(f"{target}: unknown kind of sound file {ending!r}; there are {', '.join(FORMATS)}")
    name = FORMATS[ending]
    wanted = ["OPUS"] if ending == ".opus" else [info.subtype]
    wanted += ["PCM_24"] if info.subtype in WIDE and ending != ".opus" else []
    wanted += [] if ending == ".opus" else [soundfile.default_subtype(name), "PCM_16"]
    for subtype in wanted:
        if can_be_written(name, subtype, info.sample_rate, info.channels):
            return name, subtype
    raise AudioFileError(
        f"{target}: {ending} files cannot hold {info.channels} channels at {info.sample_rate} Hz; use .wav or .flac"
    )


@lru_cache(256)
def can_be_written(format: str, subtype: str, sample_rate: int, channels: int) -> bool:
    """Whether libsndfile writes that: it says so of some that it refuses when they are opened."""
    if not soundfile.check_format(format, subtype):
        return False
    try:
        with soundfile.SoundFile(io.BytesIO(), "w", sample_rate, channels, subtype, format=format):
            return True
    except soundfile.SoundFileError:
        return False


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
