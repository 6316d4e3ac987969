"""The layout of a file, by the container that its first bytes name."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

from hooks.containers import big_endian, flac, mpeg, ogg, riff, wide
from hooks.containers.layout import Bytes, Layout

HEAD = 64


def find_layout(path: Path, is_mp3: bool = False) -> Layout:
    """What the bytes of a file say of the sound in it; an empty one for containers that are not known. With `is_mp3`
    it is one that begins with other bytes, and only that.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # it is empty
            return Layout()
        with data:
            try:
                if is_mp3:
                    return (None if starts_mp3(data[:HEAD]) else mpeg.layout(data)) or Layout()
                return of(data) or Layout()
            except (struct.error, IndexError, KeyError, OverflowError):  # it ends in the middle of a header
                return Layout()


def of(data: Bytes) -> Layout | None:
    head = data[:HEAD]
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return riff.layout(data)
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return big_endian.aiff(data)
    if head[:4] == b".snd":
        return big_endian.au(data)
    if head[:4] == b"fLaC":
        return flac.layout(data)
    if head[:4] == b"OggS":
        return ogg.layout(data)
    if head[:4] == b"caff":
        return wide.caf(data)
    if head[:4] == b"riff":
        return wide.w64(data)
    return mpeg.layout(data) if starts_mp3(head) else None


def starts_mp3(head: bytes) -> bool:
    return head[:3] == b"ID3" or mpeg.is_head(int.from_bytes(head[:4], "big"))
