"""Audio in and out: `Clip`, a waveform with its sampling rate, read from and written to files."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from hooks.by_value import ByValue
from hooks.errors import AudioFileError, SoundWarning
from hooks.samples import MAX_CHANNELS, as_floats, check_samples, far_above, mixed_to_mono, resampled
from hooks.sound_info import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE, AudioInfo, audio_info, read_blocks
from hooks.sound_writing import ClipWriter, OutputFile, check_target, create_audio

__all__ = [
    "MAX_CHANNELS",
    "MAX_SAMPLE_RATE",
    "MIN_SAMPLE_RATE",
    "AudioInfo",
    "Clip",
    "ClipWriter",
    "OutputFile",
    "Source",
    "as_clip",
    "audio_info",
    "check_target",
    "create_audio",
    "read_blocks",
    "read_clip",
    "write_clip",
]
READ_FRAMES = 2**20


@dataclass(eq=False)
class Clip(ByValue):
    """A waveform [channels, samples], float32 in about [-1, 1], at `sample_rate` Hz.

    Integers of 8, 16 and 32 bits are scaled to full scale 1. `notes` say what its user should know of it, a sentence
    each: they come as a `SoundWarning` too.

    Raises:
        AudioFileError: not [channels, samples] or [samples], more than 8 channels, no samples, samples that are not
            finite, numbers of a type that no sound has, or a rate that is no whole number of Hz.
    """

    waveform: Tensor
    sample_rate: int
    name: str = ""
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        name = self.name or "clip"
        given: Tensor | np.ndarray = self.waveform
        try:
            self.waveform = as_floats(given)
        except AudioFileError as error:
            raise AudioFileError(f"{self.name}: {error}" if self.name else str(error)) from error
        if not (0 < self.sample_rate < math.inf and int(self.sample_rate) == self.sample_rate):
            raise AudioFileError(f"{name}: sampling rate {self.sample_rate} is not a whole number of Hz, such as 44100")
        self.sample_rate = int(self.sample_rate)
        loudest = check_samples(self.waveform, name)
        note = far_above(loudest)
        if note and not any(one.startswith("peaks at") for one in self.notes):
            self.notes = (*self.notes, note)
            warn(name, [note])

    @property
    def seconds(self) -> float:
        return self.waveform.shape[1] / self.sample_rate

    def resampled(self, sample_rate: int) -> Clip:
        """The same sound at another rate (soxr, high quality)."""
        if sample_rate == self.sample_rate:
            return self
        return Clip(resampled(self.waveform, self.sample_rate, sample_rate), sample_rate, self.name, self.notes)

    def mixed(self, channels: int) -> Clip:
        """With `channels` channels: mono is the mean of all, or the loudest where they cancel each other in it, which
        is noted; mono is copied to several.

        Raises:
            AudioFileError: neither the clip nor the wish is mono, and they differ.
        """
        have = self.waveform.shape[0]
        if have == channels:
            return self
        if channels != 1 and have != 1:
            raise AudioFileError(f"{self.name or 'clip'}: cannot turn {have} channels into {channels}")
        if channels != 1:
            return Clip(self.waveform.expand(channels, -1).clone(), self.sample_rate, self.name, self.notes)
        waveform_1N, note = mixed_to_mono(self.waveform)
        if note:
            warn(self.name or "clip", [note])
        return Clip(waveform_1N, self.sample_rate, self.name, (*self.notes, *([note] if note else [])))


def warn(name: str, notes: Iterable[str]) -> None:
    """Each note as a `SoundWarning` of the caller's caller."""
    for note in notes:
        warnings.warn(f"{name}: {note}", SoundWarning, stacklevel=3)


Source = (
    Clip
    | str
    | os.PathLike[str]
    | bytes
    | bytearray
    | memoryview
    | BinaryIO
    | tuple[Tensor | np.ndarray, int]
    | Tensor
    | np.ndarray
)
"""What names a sound: a clip, a file's path, its bytes, an open binary file, (samples [channels, n] or [n], rate in Hz)
or samples at the model's own rate."""


def read_clip(path: str | Path) -> Clip:
    """Read a whole file.

    Raises:
        AudioFileError: as `audio_info`, or the file is truncated or damaged, or samples are not finite.
    """
    info = audio_info(path)
    # memory for what is read, not for what the header promises
    blocks = list(read_blocks(info, READ_FRAMES, check=False))
    warn(str(path), info.notes)
    return Clip(torch.cat(blocks, dim=1), info.sample_rate, str(path), info.notes)


def write_clip(clip: Clip, path: str | Path, subtype: str | None = None, force: bool = False) -> None:
    """Write a whole clip; raises as `create_audio`."""
    channels, frames = clip.waveform.shape
    with create_audio(path, clip.sample_rate, channels, subtype=subtype, force=force, frames=frames) as writer:
        writer.write(clip.waveform)


def as_clip(source: Source, sample_rate: int | None = None) -> Clip:
    """A clip from whatever names one; bare samples need `sample_rate` (Hz). An open file is read from where it is.

    Raises:
        AudioFileError: none of these, samples without a sampling rate; and as `Clip` and `read_clip`.
    """
    if isinstance(source, Clip):
        return source
    if isinstance(source, str | os.PathLike):
        return read_clip(Path(source))
    if isinstance(source, bytes | bytearray | memoryview):
        return clip_of_bytes(bytes(source))
    read = getattr(source, "read", None)
    if read is not None:
        data = read()
        if not isinstance(data, bytes):
            raise AudioFileError("a sound was opened as text: open it with mode 'rb'")
        return clip_of_bytes(data, str(getattr(source, "name", "")))
    if isinstance(source, tuple):
        return clip_of_pair(source)
    if not isinstance(source, Tensor | np.ndarray):
        raise AudioFileError(
            "a sound is a path, bytes, an open binary file, a Clip, (samples, rate) or samples at the model's rate, "
            f"not {type(source).__name__}"
        )
    if sample_rate is None:
        raise AudioFileError("samples without a sampling rate: pass a Clip(waveform, sample_rate)")
    return Clip(as_floats(source), sample_rate)


def clip_of_bytes(data: bytes, name: str = "") -> Clip:
    """A clip from what a sound file holds; raises as `read_clip`."""
    with TemporaryDirectory(prefix="steer-") as folder:
        path = Path(folder, "sound")
        path.write_bytes(data)
        try:
            return replace(read_clip(path), name=name)
        except AudioFileError as error:
            raise AudioFileError(str(error).replace(str(path), name or f"a sound of {len(data)} bytes")) from error


def clip_of_pair(pair: tuple[Tensor | np.ndarray, int]) -> Clip:
    """A clip from (samples, rate); raises AudioFileError for anything else, or as `Clip`."""
    if len(pair) != 2 or not isinstance(pair[0], Tensor | np.ndarray) or int(pair[1]) != pair[1]:
        raise AudioFileError("a pair that is a sound is (samples [channels, n] or [n], rate in Hz)")
    sample_rate = int(pair[1])
    if not MIN_SAMPLE_RATE <= sample_rate <= MAX_SAMPLE_RATE:
        raise AudioFileError(f"sampling rate {sample_rate} Hz is outside {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz")
    return Clip(as_floats(pair[0]).detach().cpu(), sample_rate)
