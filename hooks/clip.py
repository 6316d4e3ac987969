"""Audio in and out: `Clip`, a waveform with its sampling rate, read from and written to files."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from hooks.by_value import ByValue
from hooks.errors import AudioFileError
from hooks.files import whole_file

MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 4_000, 768_000
MAX_CHANNELS = 8
MAX_FRAMES_PER_BYTE = 2**13
"""Silence in the formats that pack it best (FLAC, Vorbis, Opus) stays below that."""
SAMPLE_DUMP = b"\xf0\x7e"
"""How a MIDI sample dump begins. Of a damaged one libsndfile prints to stdout, where JSON may be expected."""
LOUDEST = 2.0**32
"""Floats in the range of 32-bit integers are a sound written oddly; what lies beyond is damage, and overflows later."""
READ_FRAMES = 2**20


@dataclass(frozen=True)
class AudioInfo:
    """What a sound file says of itself: all that is needed to write another one of its kind."""

    path: Path
    sample_rate: int
    channels: int
    frames: int
    format: str
    subtype: str

    @property
    def seconds(self) -> float:
        return self.frames / self.sample_rate


@dataclass(eq=False)
class Clip(ByValue):
    """A waveform [channels, samples], float32 in about [-1, 1], at `sample_rate` Hz."""

    waveform: Tensor
    sample_rate: int
    name: str = ""

    def __post_init__(self) -> None:
        self.waveform = torch.as_tensor(self.waveform, dtype=torch.float32)
        if self.waveform.ndim == 1:
            self.waveform = self.waveform[None]
        if self.waveform.ndim != 2:
            raise AudioFileError(f"a clip is [channels, samples], not {list(self.waveform.shape)}")
        check_samples(self.waveform, self.name or "clip")

    @property
    def seconds(self) -> float:
        return self.waveform.shape[1] / self.sample_rate

    def resampled(self, sample_rate: int) -> Clip:
        """The same sound at another rate (soxr, high quality)."""
        if sample_rate == self.sample_rate:
            return self
        samples = soxr.resample(self.waveform.T.numpy(), self.sample_rate, sample_rate)
        return Clip(torch.from_numpy(np.ascontiguousarray(samples.T)), sample_rate, self.name)

    def mixed(self, channels: int) -> Clip:
        """With `channels` channels: mono is the mean of all, mono is copied to several.

        Raises:
            AudioFileError: neither the clip nor the wish is mono, and they differ.
        """
        have = self.waveform.shape[0]
        if have == channels:
            return self
        if channels != 1 and have != 1:
            raise AudioFileError(f"{self.name or 'clip'}: cannot turn {have} channels into {channels}")
        waveform = self.waveform.mean(0, keepdim=True) if channels == 1 else self.waveform.expand(channels, -1)
        return Clip(waveform.clone(), self.sample_rate, self.name)


Source = Clip | str | Path | bytes | BinaryIO | tuple[Tensor | np.ndarray, int] | Tensor | np.ndarray
"""What names a sound: a clip, a file's path, its bytes, an open binary file, (samples [channels, n] or [n], rate in Hz)
or samples at the model's own rate."""


def check_samples(waveform: Tensor, name: str) -> None:
    """Raises AudioFileError if there are no samples, or samples that are no numbers of a sound."""
    if waveform.numel() == 0:
        raise AudioFileError(f"{name}: has no samples")
    if not torch.isfinite(waveform).all():
        bad = int((~torch.isfinite(waveform)).sum())
        raise AudioFileError(f"{name}: {bad} samples are not finite (NaN or infinite); repair the file first")
    loudest = float(waveform.abs().max())
    if loudest > LOUDEST:
        raise AudioFileError(f"{name}: has samples up to {loudest:.0e}, where a sound has 1; repair the file first")


def audio_info(path: str | Path) -> AudioInfo:
    """Read a file's header.

    Raises:
        AudioFileError: no such file, not a sound file, no samples, or a rate or channel count that is out of range.
    """
    path = Path(path)
    if not os.path.isfile(path):
        what = "is a folder" if os.path.isdir(path) else "no regular file" if os.path.exists(path) else "no such file"
        raise AudioFileError(f"{path}: {what}")
    try:
        with path.open("rb") as file:
            if file.read(2) == SAMPLE_DUMP:
                raise AudioFileError(f"{path}: a MIDI sample dump, which is not supported; convert it to WAV")
        info = soundfile.info(os.fsencode(path))
    except (soundfile.SoundFileError, RuntimeError, TypeError, OSError) as error:
        raise AudioFileError(f"{path}: not a sound file that can be read ({reason(error)})") from error
    if info.frames <= 0:
        raise AudioFileError(f"{path}: has no samples")
    if not MIN_SAMPLE_RATE <= info.samplerate <= MAX_SAMPLE_RATE:
        raise AudioFileError(
            f"{path}: sampling rate {info.samplerate} Hz is outside {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz"
        )
    if info.channels > MAX_CHANNELS:
        raise AudioFileError(f"{path}: {info.channels} channels, at most {MAX_CHANNELS} are supported")
    if info.frames > MAX_FRAMES_PER_BYTE * os.path.getsize(path):
        raise AudioFileError(
            f"{path}: its header does not say how long it is, or more than it can hold: a stream that was not finished "
            "or a damaged file; write it anew, as with ffmpeg -i OLD NEW"
        )
    return AudioInfo(path, info.samplerate, info.channels, info.frames, info.format, info.subtype)


def reason(error: BaseException) -> str:
    """The part of a library's message that tells a user something."""
    text = str(getattr(error, "error_string", "") or error).strip()
    return text.removeprefix("Error opening ").rstrip(".") or type(error).__name__


def read_clip(path: str | Path) -> Clip:
    """Read a whole file.

    Raises:
        AudioFileError: as `audio_info`, or the file is truncated or damaged, or samples are not finite.
    """
    info = audio_info(path)
    # memory for what is read, not for what the header promises
    blocks = list(read_blocks(info, READ_FRAMES))
    return Clip(torch.cat(blocks, dim=1), info.sample_rate, str(path))


def read_blocks(
    info: AudioInfo, block_frames: int, dtype: str = "float32", start: int = 0, end: int | None = None
) -> Iterator[Tensor]:
    """Waveforms [channels, <= block_frames] one after another, so that a long file never lies in memory whole.

    `dtype` is float32, or float64 where 32-bit integers and doubles have to survive. `start` and `end` (samples) limit
    what is read.

    Raises:
        AudioFileError: the file ends before its header says, is damaged, or has samples that are not finite.
    """
    seen, end = start, info.frames if end is None else min(end, info.frames)
    try:
        with soundfile.SoundFile(os.fsencode(info.path)) as file:
            if start:
                file.seek(start)
            while seen < end:
                samples = file.read(min(block_frames, end - seen), dtype=dtype, always_2d=True)
                if not len(samples):
                    break
                seen += len(samples)
                waveform = torch.from_numpy(np.ascontiguousarray(samples.T))
                check_samples(waveform, str(info.path))
                yield waveform
    except (soundfile.SoundFileError, RuntimeError, OSError) as error:
        raise AudioFileError(f"{info.path}: damaged after {seen / info.sample_rate:.2f} s ({reason(error)})") from error
    if seen < end:
        raise AudioFileError(f"{info.path}: truncated, {seen} of {info.frames} samples could be read")


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
    """Writes blocks [channels, n] to a sound file; hard-clips what an integer format cannot hold and counts it."""

    def __init__(self, file: soundfile.SoundFile, output: OutputFile) -> None:
        self._file, self._output = file, output
        self.clipped = 0

    def write(self, waveform: Tensor) -> None:
        """Raises AudioFileError if the disk is full or a sample is not finite."""
        if not torch.isfinite(waveform).all():
            raise AudioFileError(f"{self._output.shown}: not written, since it would hold samples that are not finite")
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
) -> Iterator[ClipWriter]:
    """Write a sound file that appears whole or not at all: blocks go to a hidden file beside it, renamed at the end.

    Raises:
        AudioFileError: the file exists and `force` is off, the folder is missing or read-only, the format does not
            take the subtype, rate or channels, or the disk is full.
    """
    path = Path(path)
    check_target(path, force)
    format = format or path.suffix.lstrip(".").upper() or "WAV"
    if format not in soundfile.available_formats():
        raise AudioFileError(f"{path}: {format} files cannot be written; use .wav, .flac or .ogg")
    if not soundfile.check_format(format, subtype or None):
        raise AudioFileError(f"{path}: {format} files cannot hold {subtype} samples")
    with ExitStack() as stack:
        try:
            output = stack.enter_context(OutputFile(stack.enter_context(whole_file(path)), path))
            file = soundfile.SoundFile(output, "w", sample_rate, channels, subtype, format=format)
        except OSError as error:
            raise AudioFileError(f"{path}: could not be written ({error.strerror})") from error
        except soundfile.SoundFileError as error:
            what = f"{channels} channels at {sample_rate} Hz as {format} {subtype or ''}".strip()
            raise AudioFileError(f"{path}: cannot hold {what} ({reason(error)})") from error
        with file:
            yield ClipWriter(file, output)
        output.check()
        try:
            stack.close()
        except OSError as error:
            raise AudioFileError(f"{path}: could not be written ({error.strerror})") from error


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


def write_clip(clip: Clip, path: str | Path, subtype: str | None = None, force: bool = False) -> None:
    """Write a whole clip; raises as `create_audio`."""
    with create_audio(path, clip.sample_rate, clip.waveform.shape[0], subtype=subtype, force=force) as writer:
        writer.write(clip.waveform)


def as_clip(source: Source, sample_rate: int | None = None) -> Clip:
    """A clip from whatever names one; bare samples need `sample_rate` (Hz). An open file is read from where it is.

    Raises:
        AudioFileError: none of these, samples that are no floats or have no sampling rate; and as `read_clip`.
    """
    if isinstance(source, Clip):
        return source
    if isinstance(source, str | Path):
        return read_clip(source)
    if isinstance(source, bytes):
        return clip_of_bytes(source)
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
    return Clip(torch.as_tensor(source), sample_rate)


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
    """A clip from (samples, rate); raises AudioFileError for anything else, or samples that are no floats."""
    if len(pair) != 2 or not isinstance(pair[0], Tensor | np.ndarray) or int(pair[1]) != pair[1]:
        raise AudioFileError("a pair that is a sound is (samples [channels, n] or [n], rate in Hz)")
    samples, sample_rate = torch.as_tensor(pair[0]).detach().cpu(), int(pair[1])
    if not samples.is_floating_point():
        raise AudioFileError(f"samples are floats with full scale 1, not {samples.dtype}; divide by its largest value")
    if not MIN_SAMPLE_RATE <= sample_rate <= MAX_SAMPLE_RATE:
        raise AudioFileError(f"sampling rate {sample_rate} Hz is outside {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz")
    return Clip(samples, sample_rate)
