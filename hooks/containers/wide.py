"""CAF and W64: containers with sizes of 64 bits, which differ from the file only where it was cut off."""

from __future__ import annotations

import struct

from hooks.containers.layout import Bytes, Layout, Part

W64_DATA = b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0O\x8e\xdb\x8a"
W64_FORM = b"fmt \xf3\xac\xd3\x11\x8c\xd1\x00\xc0O\x8e\xdb\x8a"
EXTENSIBLE = b"\xfe\xff"
W64_HEAD = 24
"""Bytes of a chunk's GUID and size, which the size counts."""
MOST_CHUNKS = 4096


def caf(data: Bytes) -> Layout | None:
    """None where the file is as its header says; the size -1 means up to the end."""
    start = 8
    for _ in range(MOST_CHUNKS):
        if start + 12 > len(data):
            return None
        name, size = struct.unpack(">4sq", data[start : start + 12])
        if name == b"data":
            rest = len(data) - start - 12
            return Layout(error=f"truncated, {rest} of {size} bytes of sound are there") if size > rest else None
        start += 12 + max(0, size)
    return None


def with_plain_tag(data: Bytes, form: int) -> Part:
    """The file with the kind of its samples (integers, floats) where libsndfile looks for it: it takes all samples of
    32 bits behind a WAVE_FORMAT_EXTENSIBLE for integers."""
    return (range(form), data[form + 24 : form + 26], range(form + 2, len(data)))


def w64(data: Bytes) -> Layout | None:
    """None where the file is as its header says, and libsndfile takes it as that."""
    start, form = 40, 0
    for _ in range(MOST_CHUNKS):
        if start + W64_HEAD > len(data):
            return None
        name, size = data[start : start + 16], struct.unpack("<Q", data[start + 16 : start + 24])[0]
        if name == W64_DATA:
            rest = len(data) - start
            if size > rest:
                return Layout(claimed=size - W64_HEAD, present=rest - W64_HEAD)
            return Layout((with_plain_tag(data, form),)) if form else None
        if name == W64_FORM and data[start + W64_HEAD :][:2] == EXTENSIBLE:
            form = start + W64_HEAD
        if size < W64_HEAD:
            return None
        start += (size + 7) // 8 * 8
    return None
