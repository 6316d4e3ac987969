"""Jobs for a few processes, most urgent first; a job may lead to others, and all of them end at a deadline."""

from __future__ import annotations

import heapq
import itertools
import multiprocessing
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

Work = Callable[[Any], Any]


class JobPool:
    """Processes that each make a worker by `make(*args)` and hand it jobs.

    A job runs as `worker(job)`. Both have to be picklable, and so has what the worker gives. They are new
    interpreters, because one that has used a GPU cannot be forked.
    """

    def __init__(self, processes: int, make: Callable[..., Work], *args: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.running: dict[Connection, tuple[BaseProcess, Any]] = {}
        self.waiting: list[tuple[Any, int, Any]] = []
        self.number = itertools.count()
        for _ in range(processes):
            here, there = context.Pipe()
            process = context.Process(target=serve, args=(there, make, args), daemon=True)
            process.start()
            there.close()
            self.running[here] = (process, None)

    def add(self, urgency: Any, job: Any) -> None:
        """Small `urgency` first, of equals the one that was added first."""
        heapq.heappush(self.waiting, (urgency, next(self.number), job))
        self.hand_out()

    def hand_out(self) -> None:
        for pipe, (process, job) in list(self.running.items()):
            if job is None and self.waiting:
                job = heapq.heappop(self.waiting)[2]
                self.running[pipe] = (process, job)
                with suppress(OSError):  # of one that died `results` sees it
                    pipe.send(job)

    def results(self, deadline: float = float("inf")) -> Iterator[tuple[Any, Any]]:
        """(job, what it gave) as jobs end, until none is left or `deadline` on `time.monotonic`.

        What a job raised comes as a str, and a process that died is one less; more jobs may be added meanwhile.
        """
        while any(job is not None for _, job in self.running.values()):
            left = deadline - time.monotonic()
            if left <= 0:
                return
            for pipe in wait(list(self.running), None if left == float("inf") else left):
                assert isinstance(pipe, Connection)
                process, job = self.running[pipe]
                try:
                    result = pipe.recv()
                    self.running[pipe] = (process, None)
                except (EOFError, OSError):
                    process.join()
                    result = f"the process ended with status {process.exitcode}"
                    del self.running[pipe]
                if job is not None:
                    yield job, result
                self.hand_out()

    def close(self) -> None:
        """End all processes, whatever they are doing."""
        for process, _ in self.running.values():
            process.terminate()
        for process, _ in self.running.values():
            process.join()
        self.running.clear()

    def __enter__(self) -> JobPool:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def end_with_parent() -> None:
    """A parent that is killed closes nothing, and its last job would go on without it."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def serve(pipe: Connection, make: Callable[..., Work], args: tuple[Any, ...]) -> None:
    """What a process does: jobs as they come, until the pipe is closed or the process that gives them is dead."""
    threading.Thread(target=end_with_parent, daemon=True).start()
    worker = make(*args)
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        try:
            result = worker(job)
        except Exception:
            result = traceback.format_exc()
        pipe.send(result)
