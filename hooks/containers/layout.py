"""`Layout`: what a container's bytes say of the sound in it, and `PiecesFile`, by which a decoder reads them."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

Piece = bytes | range
"""Bytes that stand in the place of the file's own, or a range of the file's."""
Part = tuple[Piece, ...]


@dataclass(frozen=True)
class Layout:
    """Where the sound in a file is, as far as that differs from what its header says.

    `parts` are decoded one after another, each as a file of its own; without any the file is decoded as it is, and so
    it is where a decoder finds `frames` in it anyway. `claimed` and `present` are the bytes of sound by the header and
    in the file. `unknown` says that the header gives no length, `unended` that the mark of the end is missing, and
    `ignored` counts bytes behind the sound that are neither sound nor chunks. `error` is why it cannot be read.
    """

    parts: tuple[Part, ...] = ()
    frames: int | None = None
    claimed: int = 0
    present: int = 0
    unknown: bool = False
    unended: bool = False
    ignored: int = 0
    error: str = ""


class Bytes(Protocol):
    """A file that is mapped to memory, or bytes."""

    def __getitem__(self, index: slice, /) -> bytes: ...

    def __len__(self) -> int: ...

    def find(self, sub: bytes, start: int = 0, end: int = ..., /) -> int: ...

    def rfind(self, sub: bytes, start: int = 0, end: int = ..., /) -> int: ...


class PiecesFile(io.RawIOBase):
    """A file that consists of pieces, for reading."""

    def __init__(self, path: str | os.PathLike[str], pieces: Sequence[Piece]) -> None:
        super().__init__()
        self._file = open(path, "rb")  # noqa: SIM115 (closed by `close`)
        self._pieces = [piece for piece in pieces if len(piece)]
        self._starts, self._size = [], 0
        for piece in self._pieces:
            self._starts.append(self._size)
            self._size += len(piece)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        view, done = memoryview(buffer).cast("B"), 0
        for start, piece in zip(self._starts, self._pieces, strict=True):
            skip = self._at - start
            if not 0 <= skip < len(piece):
                continue
            count = min(len(piece) - skip, len(view) - done)
            if isinstance(piece, range):
                self._file.seek(piece.start + skip)
                data = self._file.read(count)
            else:
                data = piece[skip : skip + count]
            view[done : done + len(data)] = data
            done += len(data)
            self._at += len(data)
            if done == len(view) or len(data) < count:
                break
        return done

    def close(self) -> None:
        self._file.close()
        super().close()
