"""`Worker`: a task with its model opened; and its pipeline, in which files are read and written beside the model."""

from __future__ import annotations

import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from apps.batch.digest import digest, size_and_time
from apps.batch.jobs import Job, Row
from apps.files import make_folder, told
from hooks import AudioFileError, read_clip
from hooks.errors import SoundWarning
from hooks.threads import be_single


@dataclass(frozen=True)
class Done:
    """What a worker tells of a job: how long the sound is, what was measured, and what went wrong behind the output."""

    seconds: float
    result: dict[str, Any] = field(default_factory=dict)
    error: str = ""


class Worker(ABC):
    """Three steps, each on a thread of its own; what one gives the next one gets."""

    def read(self, job: Job) -> Any:
        """From the disk to memory."""
        if job.target is not None:
            make_folder(job.target.parent)
        return read_clip(job.source)

    @abstractmethod
    def work(self, jobs: Sequence[Job], values: Sequence[Any]) -> Sequence[Any]:
        """Through the model: files of like length, all at once. An error is taken to be the first one's or all files':
        they are tried again one by one."""

    @abstractmethod
    def keep(self, job: Job, value: Any) -> Done:
        """From memory to the disk; the target appears whole or not at all."""

    def end(self) -> None:  # noqa: B027 (most write file by file)
        """A lot is kept: what is written for all of it at once is written now."""


class Task(Protocol):
    """What shall be done with files: plain data that can be sent to other processes."""

    def open(self) -> Worker:
        """Raises AudioSteerError where it cannot be done on any file."""


@dataclass
class _Piece:
    """A job on its way."""

    job: Job
    read: tuple[int, int] = (0, 0)
    input: str = ""
    value: Any = None
    error: str = ""
    took: float = 0.0


def run(worker: Worker, lots: Iterable[Sequence[Job]]) -> Generator[Row, None, None]:
    """Lot after lot: while one is worked on, the next is read and the last one is written. Errors are rows."""

    def read(lot: Sequence[Job]) -> list[_Piece]:
        return [_read(worker, job) for job in lot]

    def keep(pieces: Sequence[_Piece]) -> list[Row]:
        rows = [_keep(worker, piece) for piece in pieces]
        try:
            worker.end()
        except Exception as error:
            return [row if row.error else replace(row, error=told(error), output="") for row in rows]
        return rows

    source = iter(lots)
    helper = partial(ThreadPoolExecutor, 1, initializer=be_single)
    with (
        warnings.catch_warnings(),
        helper(thread_name_prefix="read") as reader,
        helper(thread_name_prefix="keep") as writer,
    ):
        # rows have what there is to know of a sound
        warnings.filterwarnings("ignore", category=SoundWarning)

        def next_lot() -> Future[list[_Piece]] | None:
            lot = next(source, None)
            return None if lot is None else reader.submit(read, lot)

        coming, going = next_lot(), None
        while coming is not None:
            pieces = coming.result()
            coming = next_lot()
            _work(worker, [piece for piece in pieces if not piece.error])
            if going is not None:
                yield from going.result()
            going = writer.submit(keep, pieces)
        if going is not None:
            yield from going.result()


def _read(worker: Worker, job: Job) -> _Piece:
    piece = _Piece(job)
    start = time.perf_counter()
    try:
        piece.read = size_and_time(job.source)
        piece.input = digest(job.source)
        piece.value = worker.read(job)
        if size_and_time(job.source) != piece.read:
            piece.read, piece.input = (0, 0), ""  # what it holds now is not known: it is no file that failed before
            raise AudioFileError(f"{job.source}: was changed while it was read")
    except Exception as error:
        piece.error = told(error)
    piece.took = time.perf_counter() - start
    return piece


def _work(worker: Worker, pieces: Sequence[_Piece]) -> None:
    if not pieces:
        return
    start = time.perf_counter()
    try:
        values = worker.work([piece.job for piece in pieces], [piece.value for piece in pieces])
    except Exception as error:
        if len(pieces) > 1:  # whose fault it was is not known
            for piece in pieces:
                _work(worker, [piece])
            return
        pieces[0].error = told(error)
    else:
        for piece, value in zip(pieces, values, strict=True):
            piece.value = value
    for piece in pieces:
        piece.took += (time.perf_counter() - start) / len(pieces)


def _keep(worker: Worker, piece: _Piece) -> Row:
    job, start = piece.job, time.perf_counter()
    row = Row(job.key, str(job.source), piece.error, piece.input, piece.read, job.fingerprint)
    if not row.error:
        try:
            done = worker.keep(job, piece.value)
            row = replace(row, error=done.error, seconds=done.seconds, result=done.result)
            if job.target is not None:
                row = replace(row, output=digest(job.target), wrote=size_and_time(job.target))
        except Exception as error:
            row = replace(row, error=told(error))
    piece.value = None
    return replace(row, took=piece.took + time.perf_counter() - start)
