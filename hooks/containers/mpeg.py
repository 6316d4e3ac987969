"""MP3: frames one behind the other; how many is said only by a first frame that many files lack (Xing or Info).

Without it decoders take the file's size and the first frame's bit rate for a length, which is wrong for a variable bit
rate. So frames are counted, unless their number and bytes are given and the bytes are those of the file; where a
decoder's estimate is another one, a frame that gives the right number is put before them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from hooks.containers.layout import Bytes, Layout, Piece

KBIT = (
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
)
"""Of MPEG 2 and 2.5, and of MPEG 1."""
HERTZ = {0: (11_025, 12_000, 8_000), 2: (22_050, 24_000, 16_000), 3: (44_100, 48_000, 32_000)}
MOST_SKIPPED = 2**16
"""Further than this no frame is looked for behind bytes that are none."""
SLACK = 1500
"""So many bytes may a file have more than its first frame says: it is not counted by all encoders."""
LAME = 36
"""Bytes of the part behind Xing's own in which LAME says how many samples it added in front and behind."""
KEPT = 0xFFFE0C00
"""What all frames of a stream have in common: version, layer, rate."""


@dataclass(frozen=True)
class Head:
    """The four bytes that begin a frame."""

    word: int

    @property
    def version(self) -> int:
        return self.word >> 19 & 3

    @property
    def rate(self) -> int:
        return HERTZ[self.version][self.word >> 10 & 3]

    @property
    def is_mono(self) -> bool:
        return self.word >> 6 & 3 == 3

    @property
    def samples(self) -> int:
        return 1152 if self.version == 3 else 576

    @property
    def side(self) -> int:
        """Where behind the frame's start the first frame has its `Xing`."""
        return 4 + ((17 if self.is_mono else 32) if self.version == 3 else 9 if self.is_mono else 17)

    def sizes(self) -> list[int]:
        """Bytes of a frame without padding, for each bit rate."""
        return [self.samples // 8 * 1000 * kbit // self.rate for kbit in KBIT[self.version == 3]]


def is_head(word: int) -> bool:
    """Whether these are the first four bytes of a frame of layer III with a bit rate."""
    version, rate = word >> 19 & 3, word >> 10 & 3
    return word >> 21 == 2047 and version != 1 and word >> 17 & 3 == 1 and rate != 3 and word >> 12 & 15 not in (0, 15)


def word_at(data: Bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")


def tag_size(data: Bytes, at: int) -> int:
    """Bytes of the tag (ID3, APE) that begins there; 0 if none does."""
    head = data[at : at + 32]
    if head[:3] == b"ID3" and len(head) >= 10:
        return 10 + (head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9])
    if head[:8] == b"APETAGEX" and len(head) == 32:
        return struct.unpack("<I", head[12:16])[0] + (32 if head[23] & 0x20 else 0)
    return 128 if head[:3] == b"TAG" else 0


def first_frame(data: Bytes, at: int) -> int | None:
    """Where the next frame begins that another one follows (or the end); None if there is none nearby."""
    most = at + MOST_SKIPPED
    while 0 <= at < most:
        word = word_at(data, at)
        if is_head(word):
            head = Head(word)
            after = at + head.sizes()[word >> 12 & 15] + (word >> 9 & 1)
            if after >= len(data) or (word_at(data, after) ^ word) & KEPT == 0 or tag_size(data, after):
                return at
        at = data.find(b"\xff", at + 1, most + 1)
    return None


def layout(data: Bytes) -> Layout | None:
    """None where no frame is found, or the first one says how many there are and is right."""
    at = 0
    while size := tag_size(data, at):
        at += size
    start = first_frame(data, at)
    if start is None:
        return None
    head = Head(word_at(data, start))
    first_size = head.sizes()[head.word >> 12 & 15] + (head.word >> 9 & 1)
    told = told_by(data[start : start + first_size], head)
    if told is not None and told.frames and told.bytes:
        rest = len(data) - start - told.bytes
        if (
            rest < 0
            or is_end(data, start + told.bytes)
            or (rest <= SLACK and count(data, start + told.bytes, head)[0] == 0)
        ):
            return None  # as it says, or cut off, which reading finds
    begin = start + first_size if told is not None else start
    frames, end, other = count(data, begin, head)
    if other:
        return Layout(error=other)
    if told is not None and abs(told.frames - frames) <= 1:
        return None
    parts: tuple[Piece, ...] = (counting_frame(head, frames, end - begin, told), range(begin, end))
    samples = frames * head.samples
    if told is None:
        return Layout((parts,), samples, present=samples)
    return Layout((parts,), claimed=told.frames * head.samples, present=samples)


def is_end(data: Bytes, at: int) -> bool:
    """Whether the file ends there, but for tags."""
    while size := tag_size(data, at):
        at += size
    return at >= len(data)


@dataclass(frozen=True)
class Told:
    """What a file's first frame says: frames, bytes, and the samples that the encoder put before the sound."""

    frames: int
    bytes: int
    delay: int | None


def told_by(frame: bytes, head: Head) -> Told | None:
    at = next((at for at in (head.side, head.side + 2) if frame[at : at + 4] in (b"Xing", b"Info")), None)
    if at is None:
        return None
    (flags,) = struct.unpack(">I", frame[at + 4 : at + 8])
    at, values = at + 8, {}
    for bit, size in ((1, 4), (2, 4), (4, 100), (8, 4)):
        if flags & bit:
            values[bit] = int.from_bytes(frame[at : at + size], "big")
            at += size
    lame = frame[at : at + LAME]
    delay = int.from_bytes(lame[21:24], "big") >> 12 if len(lame) >= 24 and lame[:4] in (b"LAME", b"Lavc") else None
    return Told(values.get(1, 0), values.get(2, 0), delay)


def count(data: Bytes, at: int, head: Head) -> tuple[int, int, str]:
    """Number of frames from there on, where the last one ends, and what makes the file one that cannot be read."""
    frames, end, size = 0, at, len(data)
    sizes, common, mono = head.sizes(), head.word & KEPT, head.is_mono
    while at + 4 <= size:
        word = int.from_bytes(data[at : at + 4], "big")
        if word & KEPT == common and 0 < (rate := word >> 12 & 15) < 15:
            if (word >> 6 & 3 == 3) != mono:
                return frames, at, f"turns from {channels(mono)} to {channels(not mono)} on the way"
            at += sizes[rate] + (word >> 9 & 1)
            if at > size:  # cut off within the frame, which no decoder gives
                break
            frames, end = frames + 1, at
            continue
        if tag := tag_size(data, at):
            at += tag
            continue
        found = first_frame(data, at + 1)
        if found is None:
            break
        other = Head(word_at(data, found))
        if other.word & KEPT != common:
            return frames, at, f"turns from {head.rate} to {other.rate} Hz on the way"
        at = found
    return frames, end, ""


def channels(mono: bool) -> str:
    return "mono" if mono else "stereo"


def counting_frame(head: Head, frames: int, size: int, told: Told | None) -> bytes:
    """A silent first frame that gives the number of frames, and the samples before the sound where they are known."""
    needed = head.side + 120 + LAME
    rate = next(i for i, bytes_ in enumerate(head.sizes()) if bytes_ >= needed)
    frame = bytearray(head.sizes()[rate])
    # no checksum, no padding
    word = (head.word | 1 << 16) & ~(15 << 12 | 1 << 9) | rate << 12
    frame[:4] = word.to_bytes(4, "big")
    seek = bytes(256 * i // 100 for i in range(100))
    about = b"Info" + struct.pack(">III", 15, frames, size + len(frame)) + seek + bytes(4)
    if told is not None and told.delay is not None:
        # 529 samples of padding are the decoder's own delay: nothing is taken off the end
        about += b"LAME3.100" + bytes(12) + (told.delay << 12 | 529).to_bytes(3, "big")
    frame[head.side : head.side + len(about)] = about
    return bytes(frame)
