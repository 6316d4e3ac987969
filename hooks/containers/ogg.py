"""Ogg: streams may follow each other in one file (as recorded web radio has them), and decoders read the first."""

from __future__ import annotations

from hooks.containers.layout import Bytes, Layout

MAGIC = b"OggS"
FIRST, LAST = 2, 4
"""Bits of a page's flags: it begins a stream, it ends one."""


def layout(data: Bytes) -> Layout | None:
    """None for one stream that ends as it should, and for several at once, which are for other decoders."""
    starts: list[int] = []
    at, flags, begins = 0, 0, False
    size = len(data)
    while at + 27 <= size:
        head = data[at : at + 27]
        if head[:4] != MAGIC:
            at = data.find(MAGIC, at + 1)
            if at < 0:
                break
            continue
        flags, segments = head[5], head[26]
        if flags & FIRST:
            if begins:  # two streams begin before either has content
                return None
            starts.append(at)
        begins = bool(flags & FIRST)
        at += 27 + segments + sum(data[at + 27 : at + 27 + segments])
    unended = not flags & LAST or at > size
    if len(starts) < 2:
        return Layout(unended=True) if unended and starts else None
    return Layout(tuple((range(a, b),) for a, b in zip(starts, [*starts[1:], size], strict=True)), unended=unended)
