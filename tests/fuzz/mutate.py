"""Damage to bytes: what a bad disk, a bad copy or a bad mind makes of a file. The same seed makes the same damage."""

from __future__ import annotations

import numpy as np

HEADER = 96
"""Where most formats say how much follows: most damage is done there."""
SIZES = (0, 1, 2, 7, 255, 32767, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**36, 2**40, 2**63 - 1, 2**64 - 1)
PIECES = (
    b"",
    b"\0",
    b"\xff" * 8,
    b"RIFF",
    b"fLaC",
    b"OggS",
    b"\x80\x02.",
    b"PK\x03\x04",
    b"{}",
    b"\r\n",
    b"\xef\xbb\xbf",
)


def mutated(seed: bytes, rng: np.random.Generator, other: bytes = b"", header: int = HEADER) -> bytes:
    """`seed` after one to four accidents; `other` is a file that a piece may come from."""
    data = bytearray(seed)
    for _ in range(int(rng.choice([1, 1, 1, 2, 3, 4]))):
        accident(data, rng, other, header)
    return bytes(data)


def accident(data: bytearray, rng: np.random.Generator, other: bytes, header: int) -> None:
    end = min(len(data), header) if rng.random() < 0.7 else len(data)
    at = int(rng.integers(end + 1))
    length = int(rng.integers(1, 33))
    match int(rng.integers(9)):
        case 0:  # a bit
            if at < len(data):
                data[at] ^= 1 << int(rng.integers(8))
        case 1:  # some bytes
            data[at : at + length] = rng.bytes(length)
        case 2:  # a number in the header, in either order of bytes
            width = int(rng.choice([1, 2, 4, 8]))
            at -= at % (2 if width > 1 else 1)
            number = SIZES[int(rng.integers(len(SIZES)))] % 256**width
            data[at : at + width] = number.to_bytes(width, "little" if rng.random() < 0.5 else "big")
        case 3:  # the end is missing
            del data[int(rng.integers(len(data) + 1)) :]
        case 4:
            data[at:at] = PIECES[int(rng.integers(len(PIECES)))] + rng.bytes(length // 4)
        case 5:
            del data[at : at + length]
        case 6:  # a chunk twice
            data[at:at] = data[at : at + 4 * length]
        case 7:  # two fields of the header change places
            there = int(rng.integers(end + 1))
            data[at : at + 4], data[there : there + 4] = data[there : there + 4], data[at : at + 4]
        case 8:  # the head of another file
            data[:at] = other[: int(rng.integers(len(other) + 1))]
