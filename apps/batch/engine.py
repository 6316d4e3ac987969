"""Where the work is done: in this process, in several of this machine, or on a Dask cluster. One code for all."""

from __future__ import annotations

import logging
import os
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack
from dataclasses import dataclass
from pkgutil import resolve_name
from threading import Lock
from typing import Any, Protocol

from apps.batch.jobs import BatchError, Job, Row
from apps.batch.signals import held_back
from apps.batch.todo import Lot
from apps.batch.worker import Task, Worker, run
from hooks.errors import one_line, require

Began = Callable[[Sequence[Job]], None]
Rows = Generator[Row, None, None]

CONNECT_S = 15
AHEAD = 2
"""So many bundles for each worker are with the scheduler, so that none is idle while rows travel."""
LOST = "the scheduler was lost; the same command goes on when it is back"
WORK_S, MOST_FILES = 10.0, 256
"""A bundle is about so many seconds of work, once it is known how long a file takes: few enough that little is done
again where a worker dies, enough that the scheduler hardly counts."""
FORGET = 0.7
SHARES = 3
"""A bundle is at most such a share of what is left for a worker."""


KEEP_MEMORY = dict.fromkeys(("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"), str(2**29))
"""Dask's own setting has glibc give every large temporary back to the system at once, and a model then spends half of
its time on page faults."""


class Engine(Protocol):
    """Does lots of jobs. `began` is told of jobs before they are handed out; rows come as they are done."""

    def run(self, task: Task, lots: Iterable[Lot], began: Began) -> Rows: ...


@dataclass(frozen=True)
class Here:
    """In this process, by the task's worker, which is open already."""

    worker: Worker

    def run(self, task: Task, lots: Iterable[Lot], began: Began) -> Rows:
        def begun() -> Iterator[Sequence[Job]]:
            for lot in lots:
                began(lot.jobs)
                yield lot.jobs

        return run(self.worker, begun())


@dataclass(frozen=True)
class Cluster:
    """On Dask workers: `workers` processes of this machine, or those of the scheduler at `address`.

    A worker that dies is replaced, and what it had is done again; a file that takes down one worker after another
    becomes a row that says so. The first bundles, which are what travels, hold `files` files or `seconds` of sound.
    """

    workers: int = 0
    address: str = ""
    files: int = 16
    seconds: float = 60.0

    def run(self, task: Task, lots: Iterable[Lot], began: Began) -> Rows:
        """Raises MissingExtraError without Dask; BatchError if no scheduler or no worker is there, a worker cannot do
        the task, or the scheduler is lost."""
        distributed = require("distributed", "cluster")
        # what it tells of a lost scheduler, an error says in one line
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
        with ExitStack() as stack:
            client = self._client(distributed, stack)
            threads = None if self.address else max(1, (os.cpu_count() or 1) // self.workers)
            sender = Sender(distributed, client, (uuid.uuid4().hex, task, threads), began)
            pace = Pace(self.files, self.seconds)
            for row in sender.run(bundles(lots, pace, SHARES * sender.threads())):
                pace.note(row)
                yield row

    def _client(self, distributed: Any, stack: ExitStack) -> Any:
        if self.address:
            try:
                client = stack.enter_context(distributed.Client(self.address, timeout=CONNECT_S, set_as_default=False))
                client.wait_for_workers(1, timeout=CONNECT_S)
            except (OSError, ValueError, TimeoutError) as error:
                told = one_line(error)
                raise BatchError(f"--cluster {self.address}: no scheduler with workers answers ({told})") from error
            try:  # what a worker cannot unpickle is lost there, and would be waited for
                client.run(resolve_name, f"{__name__}:CONNECT_S")
            except Exception as error:
                told = one_line(error)
                raise BatchError(f"--cluster {self.address}: a worker lacks this AudioSteer ({told})") from error
            return client
        with held_back():
            local = stack.enter_context(local_cluster(distributed, self.workers))
            return stack.enter_context(distributed.Client(local, set_as_default=False))


def local_cluster(distributed: Any, workers: int) -> Any:
    """A scheduler and so many processes of this machine."""
    import dask

    with dask.config.set({"distributed.nanny.pre-spawn-environ": {"OMP_NUM_THREADS": "1", **KEEP_MEMORY}}):
        return distributed.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            # any free port: with None it would be 8787, and a second batch complain of the first
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
            silence_logs=100,
        )


class Pace:
    """How much a bundle holds: at first `files` or `seconds` of sound, then what takes `WORK_S`, going by the last."""

    def __init__(self, files: int, seconds: float) -> None:
        self.files, self.seconds = float(files), seconds
        self._took = self._seen = self._heard = 0.0

    def note(self, row: Row) -> None:
        keep = FORGET ** (row.took / WORK_S)
        self._took, self._seen, self._heard = (
            keep * before + new
            for before, new in ((self._took, row.took), (self._seen, 1.0), (self._heard, row.seconds))
        )
        if self._took:
            share = WORK_S / self._took
            self.files = min(float(MOST_FILES), share * self._seen)
            self.seconds = share * self._heard or self.seconds


class Sender:
    """Sends bundles to workers, a few ahead, and gives the rows that come back."""

    def __init__(self, distributed: Any, client: Any, what: tuple[str, Task, int | None], began: Began) -> None:
        self.distributed, self.client, self.what, self.began = distributed, client, what, began
        self.sent: dict[str, list[Lot]] = {}
        self.coming = distributed.as_completed(loop=client.loop)
        self.suspects: deque[Job] = deque()
        self.alone = False

    def run(self, waiting: Iterator[list[Lot]]) -> Rows:
        try:
            self._send(waiting)
            for future in self.coming:
                yield from self._rows(future, self.sent.pop(future.key))
                self._send(waiting)
                if not self.sent and self.suspects:
                    # one at a time, behind all others: what takes a worker down now did it alone
                    self.alone = True
                    self._submit([Lot((self.suspects.popleft(),), 0.0)])
        except (OSError, CancelledError, self.distributed.client.ClosedClientError) as error:
            raise BatchError(LOST) from error

    def threads(self) -> int:
        """So many bundles are worked on at once; at least 1."""
        return max(1, sum(self.client.nthreads().values())) if self.client.status == "running" else 1

    def _send(self, waiting: Iterator[list[Lot]]) -> None:
        threads = self.threads()
        while len(self.sent) < AHEAD * threads:
            bundle = next(waiting, None)
            if bundle is None:
                return
            self.began([job for lot in bundle for job in lot.jobs])
            self._submit(bundle)

    def _submit(self, bundle: list[Lot]) -> None:
        jobs = [[job.absolute() for job in lot.jobs] for lot in bundle]
        future = self.client.submit(run_bundle, *self.what, jobs, key=f"steer-{uuid.uuid4().hex}", pure=False)
        self.sent[future.key] = bundle
        self.coming.add(future)

    def _rows(self, future: Any, bundle: list[Lot]) -> list[Row]:
        if future.status in ("cancelled", "lost"):
            raise BatchError(LOST)
        try:
            return future.result()
        except self.distributed.KilledWorker:
            pass  # also behind the work, with the rows still in the worker
        except self.distributed.comm.CommClosedError:
            raise
        except Exception as error:
            raise BatchError(f"a worker cannot do this: {one_line(error)}") from error
        jobs = [job for lot in bundle for job in lot.jobs]
        if not self.alone:
            self.suspects.extend(jobs)
            return []
        told = "takes down every worker that works on it (a crash in a library, or too little memory)"
        return [Row(jobs[0].key, str(jobs[0].source), f"{jobs[0].source}: {told}", recipe=jobs[0].fingerprint)]


_opened: dict[str, Worker] = {}
_opening = Lock()


def run_bundle(name: str, task: Task, threads: int | None, lots: Sequence[Sequence[Job]]) -> list[Row]:
    """In a worker: the model is loaded with the first bundle."""
    with _opening:
        if name not in _opened:
            if threads:
                import torch

                torch.set_num_threads(threads)
            _opened.clear()
            _opened[name] = task.open()
    return list(run(_opened[name], lots))


def bundles(lots: Iterable[Lot], pace: Pace, parts: int) -> Iterator[list[Lot]]:
    """Lots that travel together: as the pace says when they are asked for, and a `parts`-th of what is left at most, so
    that the last ones are small and all workers end at about the same time; at least one lot."""
    waiting = deque(lots)
    left, left_s = sum(len(lot.jobs) for lot in waiting), sum(lot.seconds for lot in waiting)
    while waiting:
        most, most_s = min(pace.files, left / parts), min(pace.seconds, left_s / parts)
        bundle: list[Lot] = []
        count, length_s = 0, 0.0
        while waiting and (
            not bundle or (count + len(waiting[0].jobs) <= most and length_s + waiting[0].seconds <= most_s)
        ):
            lot = waiting.popleft()
            bundle.append(lot)
            count, length_s = count + len(lot.jobs), length_s + lot.seconds
        left, left_s = left - count, left_s - length_s
        yield bundle
