"""WAV: RIFF, RIFX (big-endian) and RF64, whose sizes recorders leave at 0 and which 4 GiB overflow."""

from __future__ import annotations

import struct
from typing import NamedTuple

from hooks.containers.layout import Bytes, Layout

PLACEHOLDER = 0x7FFF0000
"""Programs that write to a pipe put sizes from here on into the header, as they cannot know the right one."""
FULL = 2**32 - 2**16
"""Sizes from here on in a file of more than 4 GiB are the most that fits, and not the size."""
MOST_CHUNKS = 4096


class Chunk(NamedTuple):
    """A chunk's name, where its content starts, and its size in bytes as the file says it."""

    name: bytes
    start: int
    size: int


def chunks(data: Bytes, order: str, start: int = 12) -> list[Chunk]:
    """The chunks from `start` on, up to the one with the sound, or to the end of the file."""
    found: list[Chunk] = []
    while start + 8 <= len(data) and len(found) < MOST_CHUNKS:
        name, size = struct.unpack(f"{order}4sI", data[start : start + 8])
        found.append(Chunk(name, start + 8, size))
        if name == b"data":
            break
        start += 8 + size + size % 2
    return found


def is_chain(data: Bytes, order: str, start: int) -> bool:
    """Whether what starts there are chunks to the end of the file (padding of up to 7 bytes may follow)."""
    for _ in range(MOST_CHUNKS):
        if len(data) - start < 8:
            return True
        name, size = struct.unpack(f"{order}4sI", data[start : start + 8])
        start += 8 + size + size % 2
        if not all(32 <= letter < 127 for letter in name) or name in (b"RIFF", b"RF64") or start > len(data) + 1:
            return False
    return False


def layout(data: Bytes) -> Layout | None:
    """None where the file is as its header says."""
    kind = data[:4]
    order = ">" if kind == b"RIFX" else "<"
    before = chunks(data, order)
    found = {chunk.name: chunk for chunk in before}
    sound, form = found.get(b"data"), found.get(b"fmt ")
    if sound is None or form is None:
        return None
    align = max(1, struct.unpack(f"{order}H", data[form.start + 12 : form.start + 14])[0])
    (riff,) = struct.unpack(f"{order}I", data[4:8])
    rest, claimed = len(data) - sound.start, sound.size
    if kind in (b"RF64", b"BW64") and (wide := found.get(b"ds64")) is not None and claimed == 2**32 - 1:
        claimed = struct.unpack("<Q", data[wide.start + 8 : wide.start + 16])[0]
    whole = rest - rest % align
    behind = sound.start + claimed + claimed % 2
    if claimed > rest:
        if claimed < PLACEHOLDER or (kind in (b"RF64", b"BW64") and claimed != 2**64 - 1):
            return Layout(claimed=claimed, present=rest) if claimed // align > rest // align else None
        return unfinished(data, order, before, align, whole)
    unfilled = riff in (0, 8, 2**32 - 1) and kind != b"RF64"
    if is_chain(data, order, behind):
        return None
    overflowed = rest >= 2**32 and (claimed >= FULL or (rest - claimed) % 2**32 < align)
    if claimed == 0 or unfilled or overflowed:
        found_whole = unfinished(data, order, before, align, whole)
        return found_whole if claimed == 0 or unfilled else Layout(found_whole.parts, claimed=claimed, present=whole)
    # libsndfile looks for chunks there and refuses the file where it finds none
    return Layout(((range(min(behind, len(data))),),), ignored=len(data) - behind)


def unfinished(data: Bytes, order: str, before: list[Chunk], align: int, whole: int) -> Layout:
    """All bytes behind the header are sound: the same header, with the sizes that this makes."""
    sound, form = before[-1], next(chunk for chunk in before if chunk.name == b"fmt ")
    body = range(sound.start, sound.start + whole)
    if whole < 2**32 - 2**16:
        header = bytearray(data[: sound.start])
        header[:4] = b"RIFX" if order == ">" else b"RIFF"
        struct.pack_into(f"{order}I", header, 4, sound.start - 8 + whole)
        struct.pack_into(f"{order}I", header, sound.start - 4, whole)
        return Layout(((bytes(header), body),), unknown=True, present=whole)
    about = data[form.start - 8 : form.start + form.size]
    sizes = struct.pack("<4sIQQQI", b"ds64", 28, whole + 72 + len(about), whole, whole // align, 0)
    header = bytearray(b"RF64\xff\xff\xff\xffWAVE" + sizes + about + b"data\xff\xff\xff\xff")
    return Layout(((bytes(header), body),), unknown=True, present=whole)
