"""AIFF and AU: their sizes have 32 bits, and what a recorder that was cut off leaves is 0."""

from __future__ import annotations

import struct

from hooks.containers.layout import Bytes, Layout
from hooks.containers.riff import Chunk

PLAIN = (b"NONE", b"sowt", b"twos", b"raw ", b"in24", b"in32", b"42ni", b"23ni", b"fl32", b"FL32", b"fl64", b"FL64")
"""Kinds of AIFC whose frames have a fixed size."""
MOST_CHUNKS = 4096
UNKNOWN = 2**32 - 1


def aiff(data: Bytes) -> Layout | None:
    """None where the file is as its header says."""
    found: dict[bytes, Chunk] = {}
    start = 12
    while start + 8 <= len(data) and len(found) < MOST_CHUNKS:
        name, size = struct.unpack(">4sI", data[start : start + 8])
        found.setdefault(name, Chunk(name, start + 8, size))
        if name == b"SSND":
            break
        start += 8 + size + size % 2
    sound, about = found.get(b"SSND"), found.get(b"COMM")
    if sound is None or about is None or (data[8:12] == b"AIFC" and data[about.start + 18 :][:4] not in PLAIN):
        return None
    channels, frames, bits = struct.unpack(">HIH", data[about.start : about.start + 8])
    align = channels * ((bits + 7) // 8)
    (offset,) = struct.unpack(">I", data[sound.start : sound.start + 4])
    first = sound.start + 8 + offset
    rest = len(data) - first
    if not align or rest <= 0:
        return None
    if frames * align > rest:
        return Layout(claimed=frames * align, present=rest)
    if frames or sound.size > 8 + offset:
        return None
    whole = min(rest // align, (UNKNOWN - first) // align)
    header = bytearray(data[:first])
    struct.pack_into(">I", header, about.start + 2, whole)
    struct.pack_into(">I", header, sound.start - 4, 8 + offset + whole * align)
    struct.pack_into(">I", header, 4, first - 8 + whole * align)
    return Layout(((bytes(header), range(first, first + whole * align)),), unknown=True, present=whole * align)


def au(data: Bytes) -> Layout | None:
    """None where the file is as its header says, or says that its length is not known, which libsndfile reads."""
    start, size = struct.unpack(">II", data[4:12])
    rest = len(data) - start
    if size in (UNKNOWN, rest) or rest <= 0:
        return None
    if size > rest:
        return Layout(claimed=size, present=rest)
    if size and not (rest >= 2**32 and ((rest - size) % 2**32 == 0 or size >= 2**32 - 2**16)):
        return Layout(ignored=rest - size)
    header = data[:8] + struct.pack(">I", UNKNOWN) + data[12:start]
    return Layout(((header, range(start, len(data))),), unknown=not size, claimed=size, present=rest)
