"""Sound files that appear whole or not at all, and hold what was written to them."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import soundfile
import torch
from torch import Tensor

from hooks.errors import AudioFileError
from hooks.files import whole_file
from hooks.sound_info import SAMPLE_BYTES, reason
from hooks.tags import Tags

NARROW = ("WAV", "WAVEX", "AIFF", "AU", "AVR", "SVX", "PAF", "NIST", "IRCAM", "VOC")
"""Formats with sizes of 32 bits."""
NARROW_BYTES, HEADER = 2**32, 2**16
"""What they hold at most, and of that what is not sound."""
EXACT = ("VORBIS", "OPUS", "MPEG_LAYER_III", "ALAC_16", "ALAC_20", "ALAC_24", "ALAC_32")
"""Compressed subtypes that keep the number of samples; the others fill their last block, which has up to `BLOCK`."""
BLOCK = 2**14
RF64_AUTO_DOWNGRADE = 0x1210
"""libsndfile's command SFC_RF64_AUTO_DOWNGRADE, which soundfile has no name for."""


class OutputFile(io.FileIO):
    """Notes the first write that failed and goes on, until `check`.

    libsndfile cannot be trusted with it: on a full disk some of its encoders lose the end of a file without a word.
    """

    def __init__(self, path: Path, shown: Path) -> None:
        super().__init__(path, "w")
        self.shown, self.error = shown, ""

    def write(self, data: bytes) -> int:  # type: ignore[override]
        rest = memoryview(data)
        try:
            while len(rest) and not self.error:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.error = error.strerror or str(error)
        return len(data)

    def check(self) -> None:
        """Raises AudioFileError if a write has failed."""
        if self.error:
            raise AudioFileError(f"{self.shown}: could not be written ({self.error})")


class ClipWriter:
    """Writes blocks [channels, n] to a sound file; hard-clips what an integer format cannot hold and counts it.

    `frames` counts the samples of a channel that were written, of which the file can hold `most`.
    """

    def __init__(self, file: soundfile.SoundFile, output: OutputFile, most: float = math.inf) -> None:
        self._file, self._output, self.most = file, output, most
        self.clipped = self.frames = 0

    def write(self, waveform: Tensor) -> None:
        """Raises AudioFileError if the disk or the file is full, or a sample is not finite."""
        if not torch.isfinite(waveform).all():
            raise AudioFileError(f"{self._output.shown}: not written, since it would hold samples that are not finite")
        self.frames += waveform.shape[1]
        if self.frames > self.most:
            raise AudioFileError(too_long(self._output.shown, self._file.format))
        if not self._file.subtype.startswith(("FLOAT", "DOUBLE")):
            self.clipped += int((waveform.abs() > 1.0).sum())
            waveform = waveform.clamp(-1.0, 1.0)
        # small pieces: libsndfile's Vorbis encoder keeps what it is given on the stack
        for piece_CN in waveform.split(8192, dim=1):
            self._file.write(piece_CN.T.numpy())
        self._output.check()


@contextmanager
def create_audio(
    path: str | Path,
    sample_rate: int,
    channels: int,
    format: str | None = None,
    subtype: str | None = None,
    force: bool = False,
    frames: int | None = None,
    tags: Tags | None = None,
) -> Iterator[ClipWriter]:
    """Write a sound file that appears whole or not at all: blocks go to a hidden file beside it, renamed at the end.

    `tags` is what the file gets beside the sound, as far as its format has a place for it (`Tags.lost` says the rest).
    `frames` is how many samples a channel will get, where that is known. A WAV that they, or what is written without
    it, take beyond 4 GiB becomes an RF64, which is what a WAV of that size is. Before the file appears it is opened,
    and holds as many samples as were written.

    Raises:
        AudioFileError: the file exists and `force` is off, the folder is missing or read-only, the format does not
            take the subtype, rate or channels or so many samples, or the disk is full.
    """
    path = Path(path)
    check_target(path, force)
    format = format or path.suffix.lstrip(".").upper() or "WAV"
    if format not in soundfile.available_formats():
        raise AudioFileError(f"{path}: {format} files cannot be written; use .wav, .flac or .ogg")
    if not soundfile.check_format(format, subtype or None):
        raise AudioFileError(f"{path}: {format} files cannot hold {subtype} samples")
    subtype = subtype or soundfile.default_subtype(format)
    most = most_frames(format, subtype, channels)
    if frames is not None:
        check_fits(path, format, subtype, channels, frames)
    # of a WAV there is a kind that holds more
    is_wav = format in ("WAV", "WAVEX") and subtype in SAMPLE_BYTES
    is_long = is_wav and (frames is None or frames > most)
    with ExitStack() as stack:
        try:
            partial = stack.enter_context(whole_file(path))
            output = stack.enter_context(OutputFile(partial, path))
            kind = "RF64" if is_long else format
            file = soundfile.SoundFile(output, "w", sample_rate, channels, subtype, format=kind)
        except OSError as error:
            raise AudioFileError(f"{path}: could not be written ({error.strerror})") from error
        except soundfile.SoundFileError as error:
            what = f"{channels} channels at {sample_rate} Hz as {format} {subtype or ''}".strip()
            raise AudioFileError(f"{path}: cannot hold {what} ({reason(error)})") from error
        with file:
            if is_long and frames is None:
                become_wav(file)
            if tags is not None:
                tags.start(file)
            writer = ClipWriter(file, output, math.inf if is_wav else most)
            yield writer
        output.check()
        try:
            if tags is not None:
                tags.finish(partial, kind)
            verify(partial, writer.frames, path)
            stack.close()
        except OSError as error:
            raise AudioFileError(f"{path}: could not be written ({error.strerror})") from error


def most_frames(format: str, subtype: str, channels: int) -> float:
    """How many samples a channel of such a file can have."""
    if format not in NARROW or subtype not in SAMPLE_BYTES:
        return math.inf
    return (NARROW_BYTES - HEADER) // (SAMPLE_BYTES[subtype] * channels)


def check_fits(path: Path, format: str, subtype: str, channels: int, frames: int) -> None:
    """Raises AudioFileError where a file of that format cannot hold so many samples; a WAV becomes an RF64."""
    if format not in ("WAV", "WAVEX") and frames > most_frames(format, subtype, channels):
        raise AudioFileError(too_long(path, format))


def become_wav(file: soundfile.SoundFile) -> None:
    """Have an RF64 become a WAV when it is closed, if it fits."""
    soundfile._snd.sf_command(file._file, RF64_AUTO_DOWNGRADE, soundfile._ffi.NULL, 1)


def verify(partial: Path, frames: int, path: Path) -> None:
    """Raises AudioFileError unless a file opens and holds `frames` samples, or with some more fills its last block."""
    try:
        found = soundfile.info(os.fsencode(partial))
    except soundfile.SoundFileError as error:
        if not frames:  # libsndfile does not open all of its files that have no samples
            return
        raise AudioFileError(f"{path}: what was written cannot be opened ({reason(error)}); it was removed") from error
    slack = 0 if found.subtype in SAMPLE_BYTES or found.subtype in EXACT else BLOCK
    # AIFF and others end on even bytes
    slack = max(slack, 1 if SAMPLE_BYTES.get(found.subtype) == 1 else 0)
    if not frames <= found.frames <= frames + slack:
        raise AudioFileError(
            f"{path}: {frames} samples were written, and its header says {found.frames}; it was removed"
        )


def too_long(path: Path, format: str) -> str:
    return f"{path}: {format} files hold at most 4 GiB, and this one would be longer; use .flac, .w64 or .rf64"


def check_target(path: Path, force: bool) -> None:
    """Raises AudioFileError if `path` exists (without `force`), is a folder, or its folder is missing."""
    # os.path, unlike Path, answers no where the name itself is impossible
    if os.path.isdir(path):
        raise AudioFileError(f"{path}: is a folder, not a file name")
    if os.path.exists(path) and not force:
        raise AudioFileError(f"{path}: exists already; use --force (force=True) to overwrite it")
    if not path.parent.is_dir():
        raise AudioFileError(f"{path.parent}: no such folder")
    if not os.access(path.parent, os.W_OK):
        raise AudioFileError(f"{path.parent}: no permission to write there")
