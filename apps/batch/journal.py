"""`Journal`: what became of each file, a JSON line each, only ever added to.

Two kinds of lines: `{"begun": [keys]}` before work is handed out, and a `Row` when it is done. Whatever kills the
process, all whole lines count: a file that was begun and has no row was in flight, is ours, and is done again. Each
line ends with a checksum, so that what was damaged or edited is no line of ours.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from apps.batch.jobs import BatchError, Job, Row
from hooks.files import check_regular

JOURNAL = "journal.jsonl"
CHECK = b', "check": "'


class Journal:
    """The journal of a folder, held by one process at a time. Before it was opened, `rows` were the last of each key,
    and the keys `in_flight` were begun and not done. Lines that a full disk does not take wait until it does.

    Raises:
        BatchError: another process holds it, or it cannot be read or written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / JOURNAL
        self.rows: dict[str, Row] = {}
        self.in_flight: set[str] = set()
        self._unwritten: list[bytes] = []
        self._start: int | None = None  # of the line that is being written
        try:
            if self.path.exists():
                check_regular(self.path)
            # unbuffered: a line is on its way to the disk before the next file is begun
            self._file = self.path.open("ab+", buffering=0)
        except OSError as error:
            raise BatchError(f"{self.path}: cannot be opened ({error.strerror})") from error
        try:
            self._hold()
            self._read()
        except OSError as error:
            self._file.close()
            raise BatchError(f"{self.path}: cannot be read ({error.strerror})") from error
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def begin(self, jobs: Sequence[Job]) -> None:
        self._write({"begun": [job.key for job in jobs]})

    def note(self, row: Row) -> None:
        self._write(row.to_dict())

    def close(self) -> None:
        """Raises BatchError if what was written may not have reached the disk."""
        try:
            self._flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise BatchError(f"{self.path}: may not be on the disk ({error.strerror})") from error
        finally:
            self._file.close()

    def unwritten(self) -> list[Row]:
        """Of the lines that wait."""
        told = (parsed(line) for line in self._unwritten)
        return [one for one in told if isinstance(one, Row)]

    def _write(self, values: dict[str, Any]) -> None:
        self._unwritten.append(line_of(values))
        self._flush()

    def _flush(self) -> None:
        """Write what waits; on a full disk it waits on, and the half of a line that was written is removed.

        A signal may raise between the write and what follows it: the length of the file then says how much of the
        line is there, and it is not written twice.
        """
        while self._unwritten:
            line = self._unwritten[0]
            if self._start is None:
                self._start = os.fstat(self._file.fileno()).st_size
            elif self._size_after(self._start, line):
                continue
            with suppress(OSError):
                self._file.write(line)
            if not self._size_after(self._start, line):
                return

    def _size_after(self, start: int, line: bytes) -> bool:
        """Whether the whole line is in the file, and no longer waits; a part of it is removed."""
        if os.fstat(self._file.fileno()).st_size == start + len(line):
            self._start = None  # before the line goes: a signal between the two may only repeat it
            self._unwritten.pop(0)
            return True
        os.ftruncate(self._file.fileno(), start)
        return False

    def _read(self) -> None:
        self._file.seek(0)
        text = self._file.read()
        for line in text.split(b"\n"):
            told = parsed(line)
            if isinstance(told, Row):
                before = self.rows.get(told.key)
                if before and not told.output:  # what failed left what was there, which is still ours
                    told = replace(told, output=before.output, wrote=before.wrote)
                self.rows[told.key] = told
                self.in_flight.discard(told.key)
            elif told:
                self.in_flight |= told
        if text and not text.endswith(b"\n"):
            self._unwritten.append(b"\n")
            self._flush()

    def _hold(self) -> None:
        try:
            import fcntl
        except ImportError:  # Windows, where nothing keeps two batches apart
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BatchError(f"{self.path}: another batch is at work in this folder; wait for it or stop it") from error
        except OSError:
            return  # a file system without locks


def line_of(values: dict[str, Any]) -> bytes:
    """JSON whose last key is the checksum (CRC-32) of all before it."""
    text = json.dumps(values, ensure_ascii=False).encode("utf-8", "surrogateescape")[:-1]
    return text + CHECK + b'%08x"}\n' % zlib.crc32(text)


def parsed(line: bytes) -> Row | set[str] | None:
    """A row, or the keys that were begun; None for half a line of a process that was killed, and for any other."""
    text, _, check = line.rpartition(CHECK)
    if check.rstrip() != b'%08x"}' % zlib.crc32(text):
        return None
    try:
        values = json.loads(line.decode("utf-8", "surrogateescape"))
        return set(map(str, values["begun"])) if "begun" in values else Row.of(values)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None


def read_rows(folder: Path) -> list[Row]:
    """The last row of each file in a folder's journal, without holding it.

    Raises:
        BatchError: there is none, or it cannot be read.
    """
    path = folder / JOURNAL
    rows: dict[str, Row] = {}
    try:
        check_regular(path)
        with path.open("rb") as file:
            for line in file:
                told = parsed(line)
                if isinstance(told, Row):
                    rows[told.key] = told
    except OSError as error:
        raise BatchError(f"{path}: cannot be read ({error.strerror})") from error
    return list(rows.values())
