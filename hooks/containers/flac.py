"""FLAC: its header counts the samples, or has 0 where the encoder could not go back to it."""

from __future__ import annotations

from hooks.containers.layout import Bytes, Layout

TOTAL_AT = 18
"""Where the eight bytes begin whose lower 36 bits are the number of samples."""
LONGEST_FRAME = 2**17
"""In bytes, where the header does not say it."""
SHORTEST_FRAME = 9
TAG = 128
"""Bytes of an ID3v1 tag, which some programs put behind the last frame."""


def table(polynomial: int, bits: int) -> list[int]:
    top, mask, found = 1 << bits - 1, (1 << bits) - 1, []
    for byte in range(256):
        value = byte << bits - 8
        for _ in range(8):
            value = (value << 1 ^ polynomial if value & top else value << 1) & mask
        found.append(value)
    return found


CRC8, CRC16 = table(0x07, 8), table(0x8005, 16)


def crc8(data: bytes) -> int:
    value = 0
    for byte in data:
        value = CRC8[value ^ byte]
    return value


def crc16(data: bytes) -> int:
    value = 0
    for byte in data:
        value = (value << 8 & 0xFFFF) ^ CRC16[value >> 8 ^ byte]
    return value


def layout(data: Bytes) -> Layout | None:
    """None where the number of samples is what the last frame says, or more: then reading tells what is missing."""
    about = int.from_bytes(data[TOTAL_AT : TOTAL_AT + 8], "big")
    claimed, block = about & 2**36 - 1, int.from_bytes(data[8:10], "big")
    total = last_sample(data, block, claimed)
    if total is None or total <= claimed:
        return None
    header = data[:TOTAL_AT] + (about - claimed + total).to_bytes(8, "big") + data[TOTAL_AT + 8 : TOTAL_AT + 24]
    # what was hashed is not known to be all of it
    header = header[:-16] + bytes(16)
    parts = ((header, range(len(header), len(data))),)
    return Layout(parts, total, claimed=claimed, present=total, unknown=not claimed)


def last_sample(data: Bytes, block: int, claimed: int) -> int | None:
    """Where the last frame of the file ends, in samples; None if none is found that is whole."""
    end = len(data) - (TAG if data[len(data) - TAG :][:3] == b"TAG" else 0)
    longest = int.from_bytes(data[15:18], "big") or LONGEST_FRAME
    first = max(42, end - longest - TAG)
    tail, at = data[first:end], end - first - SHORTEST_FRAME + 1
    while (at := tail.rfind(b"\xff", 0, max(0, at))) >= 0:
        if tail[at + 1 : at + 2] not in (b"\xf8", b"\xf9"):
            continue
        found = frame_end(tail[at : at + 16], block)
        if found is None:
            continue
        if found == claimed or crc16(tail[at:-2]) == int.from_bytes(tail[-2:], "big"):
            return found
    return None


def frame_end(head: bytes, block: int) -> int | None:
    """From the first bytes of a frame: the number of the sample behind it, or None where they are no frame's."""
    size_code, rate_code = head[2] >> 4, head[2] & 15
    if size_code == 0 or rate_code == 15 or head[3] & 1 or head[3] >> 4 > 10 or (head[3] >> 1 & 7) in (3, 7):
        return None
    ones = next((i for i in range(8) if not head[4] >> 7 - i & 1), 8)
    if ones in (1, 8):
        return None
    count = max(1, ones)
    number = head[4] & 0x7F if ones == 0 else head[4] & (0x7F >> ones)
    for byte in head[5 : 4 + count]:
        if byte >> 6 != 2:
            return None
        number = number << 6 | byte & 63
    at = 4 + count
    if size_code in (6, 7):
        width = size_code - 5
        size = int.from_bytes(head[at : at + width], "big") + 1
        at += width
    else:
        size = 192 if size_code == 1 else 576 << size_code - 2 if size_code < 6 else 256 << size_code - 8
    at += {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if at >= len(head) or crc8(head[:at]) != head[at]:
        return None
    return size + (number if head[1] & 1 else number * block)
