"""What a sound file says of itself, and its samples block by block: all that really are in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor

from hooks import ffmpeg
from hooks.containers.find import find_layout
from hooks.containers.layout import Layout, Part, PiecesFile
from hooks.errors import AudioFileError
from hooks.ffmpeg import Decoded
from hooks.samples import MAX_CHANNELS, check_samples

MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 4_000, 768_000
MAX_FRAMES_PER_BYTE = 2**13
"""Silence in the formats that pack it best (FLAC, Vorbis, Opus) stays below that."""
SAMPLE_BYTES = {
    "PCM_S8": 1, "PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8, "ULAW": 1, "ALAW": 1,
}  # fmt: skip
"""Bytes of a sample of subtypes without compression."""
NEAR_S = 0.1
"""Lengths that differ by less are not told."""
SAMPLE_DUMP = b"\xf0\x7e"
"""How a MIDI sample dump begins. Of a damaged one libsndfile prints to stdout, where JSON may be expected."""


@dataclass(frozen=True)
class AudioInfo:
    """What a sound file says of itself: all that is needed to write another one of its kind.

    `frames` is how many samples a channel really has, or should have where the file was cut off: reading tells then.
    `parts` are decoded one after another where the file is not simply decoded as it is, `part_frames` long each.
    `notes` say what differs between the file and its header, a sentence each.
    """

    path: Path
    sample_rate: int
    channels: int
    frames: int
    format: str
    subtype: str
    parts: tuple[Part, ...] = field(default=(), repr=False)
    part_frames: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    decoded: Decoded | None = field(default=None, repr=False, compare=False)

    @property
    def seconds(self) -> float:
        return self.frames / self.sample_rate

    def opened(self) -> Iterator[tuple[int, Any]]:
        """(its frames, an open `SoundFile`) of one part after another; each is closed when the next is asked for."""
        for part, frames in zip(self.parts, self.part_frames, strict=True):
            with PiecesFile(self.path, part) as pieces, soundfile.SoundFile(pieces) as file:
                yield frames, file
        if not self.parts:
            with soundfile.SoundFile(os.fsencode(self.decoded.path if self.decoded else self.path)) as file:
                yield self.frames, file


def audio_info(path: str | Path) -> AudioInfo:
    """Read a file's header, and compare it with what the file holds.

    Raises:
        AudioFileError: no such file, not a sound file, no samples, or a rate or channel count that is out of range; a
            file that only ffmpeg decodes, where that is not installed.
    """
    path = Path(path)
    if not os.path.isfile(path):
        what = "is a folder" if os.path.isdir(path) else "no regular file" if os.path.exists(path) else "no such file"
        raise AudioFileError(f"{path}: {what}")
    try:
        with path.open("rb") as file:
            head = file.read(64)
        if head[:2] == SAMPLE_DUMP:
            raise AudioFileError(f"{path}: a MIDI sample dump, which is not supported; convert it to WAV")
        if ffmpeg.is_media(head) or (ffmpeg.is_packed(head) and ffmpeg.is_there()):
            return checked(decoded_info(path))
        layout = find_layout(path)
        if not layout.parts and os.path.exists(path.with_name(f"._{path.name}")):
            # macOS leaves those on foreign disks and in archives, and libsndfile takes them for a part of an MP3
            layout = replace(layout, parts=((range(os.path.getsize(path)),),))
        return checked(with_layout(path, layout))
    except (soundfile.SoundFileError, RuntimeError, TypeError, OSError) as error:
        if path.suffix.lower() in ffmpeg.ENDINGS:
            return checked(decoded_info(path))
        raise AudioFileError(f"{path}: not a sound file that can be read ({reason(error)})") from error


def with_layout(path: Path, layout: Layout) -> AudioInfo:
    """A file of libsndfile's, with what its layout corrects.

    Raises:
        AudioFileError: parts of different rates or channels, or a header that gives no length.
        soundfile.SoundFileError: it is none of libsndfile's.
    """
    if layout.error:
        raise AudioFileError(f"{path}: {layout.error}; write it anew, as with ffmpeg -i OLD NEW.wav")
    if layout.parts and not layout.claimed > layout.present > 0:
        heads = []
        for part in layout.parts:
            with PiecesFile(path, part) as pieces, soundfile.SoundFile(pieces) as file:
                heads.append((file.samplerate, file.channels, file.format, file.subtype, file.frames))
        kinds = {head[:2] for head in heads}
        if len(kinds) > 1:
            told = ", ".join(f"{rate} Hz with {channels} channels" for rate, channels in sorted(kinds))
            raise AudioFileError(f"{path}: holds {len(heads)} sounds one behind the other, of {told}; split it first")
        lengths = tuple(head[4] for head in heads)
        rate, channels, kind, subtype, _ = heads[0]
        parts, frames = layout.parts, sum(lengths)
        if layout.frames is not None and len(heads) == 1:
            plain = soundfile.info(os.fsencode(path))
            if plain.frames == layout.frames:
                return AudioInfo(path, rate, channels, plain.frames, plain.format, plain.subtype)
            claimed: float | None = plain.frames / rate
        else:
            claimed = layout.claimed * frames / layout.present / rate if layout.claimed else None
        notes = notes_of(layout)
        # without a count in its first frame an MP3's length is an estimate, which may be right
        is_near = claimed is not None and abs(frames / rate - claimed) < NEAR_S and not layout.unknown
        if len(heads) > 1 or (layout.present and not is_near):
            notes = (length_note(frames / rate, None if layout.unknown else claimed, len(heads)), *notes)
        return AudioInfo(path, rate, channels, frames, kind, subtype, parts, lengths, notes)
    found = soundfile.info(os.fsencode(path))
    if found.format == "RAW":  # by its ending alone
        raise AudioFileError(f"{path}: not a sound file that can be read (it has no header)")
    if found.subtype in ("MPEG_LAYER_I", "MPEG_LAYER_II"):  # of which libsndfile knows the length by and large
        return decoded_info(path)
    if found.format == "MP3" and layout == Layout():
        # what begins with other bytes was not taken for an MP3 yet
        layout = find_layout(path, is_mp3=True)
        if layout.parts or layout.error:
            return with_layout(path, layout)
    frames = found.frames
    if layout.claimed > layout.present > 0:
        width = SAMPLE_BYTES.get(found.subtype)
        share = frames * layout.claimed // layout.present
        frames = layout.claimed // (width * found.channels) if width else share
    if frames > MAX_FRAMES_PER_BYTE * os.path.getsize(path) and not layout.claimed:
        raise AudioFileError(
            f"{path}: its header does not say how long it is, or more than it can hold: a stream that was not finished "
            "or a damaged file; write it anew, as with ffmpeg -i OLD NEW"
        )
    notes = notes_of(layout)
    return AudioInfo(path, found.samplerate, found.channels, frames, found.format, found.subtype, notes=notes)


def length_note(seconds: float, claimed: float | None, parts: int) -> str:
    if parts > 1:
        return f"holds {parts} sounds one behind the other; all of their {seconds:.2f} s are read"
    said = "does not say how long it is" if claimed is None else f"says {claimed:.2f} s"
    return f"its header {said}; the {seconds:.2f} s that are there are read"


def notes_of(layout: Layout) -> tuple[str, ...]:
    notes = []
    if layout.ignored:
        notes.append(f"{layout.ignored} bytes behind the end that its header gives are not read")
    if layout.unended:
        notes.append("ends without the mark of an end: it was cut off, or its recording was not finished")
    return tuple(notes)


def decoded_info(path: Path) -> AudioInfo:
    """Of a file that ffmpeg decodes; raises AudioFileError as `hooks.ffmpeg.decode`."""
    decoded = ffmpeg.decode(path)
    found = soundfile.info(os.fsencode(decoded.path))
    notes = []
    if decoded.tracks > 1:
        notes.append(f"has {decoded.tracks} tracks of sound; the first is read")
    if decoded.complaint:
        notes.append(f"ffmpeg complains of it: {decoded.complaint}")
    subtype = "PCM_24" if decoded.bits > 16 else decoded.codec
    about = (path, found.samplerate, found.channels, found.frames, "FFMPEG", subtype)
    return AudioInfo(*about, notes=tuple(notes), decoded=decoded)


def checked(info: AudioInfo) -> AudioInfo:
    """The same; raises AudioFileError for a file without samples, or with a rate or channels that are out of range."""
    path = info.path
    if info.frames <= 0:
        raise AudioFileError(f"{path}: has no samples")
    if not MIN_SAMPLE_RATE <= info.sample_rate <= MAX_SAMPLE_RATE:
        raise AudioFileError(
            f"{path}: sampling rate {info.sample_rate} Hz is outside {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE} Hz"
        )
    if info.channels > MAX_CHANNELS:
        raise AudioFileError(f"{path}: {info.channels} channels, at most {MAX_CHANNELS} are supported")
    return info


def reason(error: BaseException) -> str:
    """The part of a library's message that tells a user something."""
    text = str(getattr(error, "error_string", "") or error).strip()
    return text.removeprefix("Error opening ").rstrip(".") or type(error).__name__


def read_blocks(
    info: AudioInfo,
    block_frames: int,
    dtype: str = "float32",
    start: int = 0,
    end: int | None = None,
    *,
    check: bool = True,
) -> Iterator[Tensor]:
    """Waveforms [channels, <= block_frames] one after another, so that a long file never lies in memory whole.

    `dtype` is float32, or float64 where 32-bit integers and doubles have to survive. `start` and `end` (samples) limit
    what is read. Without `check` the caller looks whether samples are finite.

    Raises:
        AudioFileError: the file ends before its header says, is damaged, or has samples that are not finite.
    """
    seen, end = start, info.frames if end is None else min(end, info.frames)
    first = 0
    """Where the part begins that is read."""
    try:
        with ExitStack() as stack:
            files = info.opened()
            stack.callback(files.close)  # type: ignore[attr-defined]
            for frames, file in files:
                last = min(end, first + frames)
                if seen < last and seen > first:
                    file.seek(seen - first)
                while seen < last:
                    samples = file.read(min(block_frames, last - seen), dtype=dtype, always_2d=True)
                    if not len(samples):
                        break
                    seen += len(samples)
                    waveform = torch.from_numpy(np.ascontiguousarray(samples.T))
                    if check:
                        check_samples(waveform, str(info.path))
                    yield waveform
                if seen < last:
                    break
                first += frames
    except (soundfile.SoundFileError, RuntimeError, OSError) as error:
        raise AudioFileError(f"{info.path}: damaged after {seen / info.sample_rate:.2f} s ({reason(error)})") from error
    if seen < end:
        raise AudioFileError(
            f"{info.path}: truncated, {seen} of {info.frames} samples could be read; if that is enough, write them "
            "anew, as with ffmpeg -i OLD NEW"
        )
