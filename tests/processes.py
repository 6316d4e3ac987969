"""Processes that are forked from one which has loaded torch: that takes a new Python two seconds, and most of them are
started for what they do afterwards.

Each is the leader of a session of its own. What matters when a process begins, as imports, is tested in a new Python.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Mapping
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

CONTEXT = get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch", "apps.cli", "apps.batch.edit_work"])


def begin(
    call: Callable[..., object],
    arguments: tuple[Any, ...],
    variables: Mapping[str, str],
    streams: list[Path | Connection],
) -> None:
    """In the new process: a call with standard output and error where they are wanted."""
    os.setsid()
    os.environ.clear()
    os.environ.update(variables)
    opened = [stream.open("ab") if isinstance(stream, Path) else stream for stream in streams]
    for number, stream in enumerate(opened, start=1):
        os.dup2(stream.fileno(), number)
    # those that are there remember what they wrote to before
    sys.stdout, sys.stderr = (os.fdopen(n, "w", 1, "utf-8", closefd=False) for n in (1, 2))
    call(*arguments)


class Forked:
    """`call(*arguments)` in a process, with the methods of `subprocess.Popen` that tests use.

    What it prints goes to the file `log`; without one it is kept for `text`.
    """

    def __init__(
        self, call: Callable[..., object], *arguments: Any, log: Path | None = None, variables: Mapping[str, str]
    ) -> None:
        pipes = [] if log else [CONTEXT.Pipe(duplex=False) for _ in range(2)]
        streams = [log, log] if log else [writer for _, writer in pipes]
        self._process = CONTEXT.Process(target=begin, args=(call, arguments, {**os.environ, **variables}, streams))
        self._process.start()
        self.pid = self._process.pid
        for _, writer in pipes:
            writer.close()
        self._readers = [reader for reader, _ in pipes]

    def text(self) -> tuple[str, str]:
        """All of standard output and error, of some kilobytes at most."""
        found = []
        for reader in self._readers:
            with os.fdopen(os.dup(reader.fileno()), encoding="utf-8") as stream:
                found.append(stream.read())
            reader.close()
        return found[0], found[1]

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise TimeoutError(f"process {self.pid} runs on after {timeout} s")
        return code

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()
