"""`steer` and a Dask cluster as processes of their own, that can be killed at any moment."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil

from apps.batch.jobs import Row
from apps.batch.journal import JOURNAL, parsed
from apps.cli import main
from tests.processes import Forked

ROOT = Path(__file__).parents[3]
QUIET = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "DASK_DISTRIBUTED__SCHEDULER__DASHBOARD__LINK": ""}
CAPABILITIES_V3, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 0x20080522, 1, 2
PATIENCE_S = 120.0
"""So long a test waits for what should come within seconds: other work may be on the machine."""


class Process:
    """A command in a session of its own, by which all its descendants are found, also those whose parents are dead."""

    def __init__(self, folder: Path, start: Callable[[Path], subprocess.Popen[bytes] | Forked]) -> None:
        self.log = folder / f"{time.monotonic_ns()}.log"
        self.log.touch()
        self.popen = start(self.log)

    def text(self) -> str:
        return self.log.read_text()

    def all(self) -> list[psutil.Process]:
        """The process and its descendants, as far as they live."""
        found = []
        for process in psutil.process_iter():
            try:
                if os.getsid(process.pid) == self.popen.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (ProcessLookupError, psutil.NoSuchProcess):
                continue
        return found

    def workers(self) -> list[psutil.Process]:
        """Those of `--workers`."""
        return [process for process in self.all() if "spawn_main" in " ".join(process.cmdline())]

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()

    def ended(self, within_s: float = PATIENCE_S) -> int:
        """The exit code."""
        return self.popen.wait(within_s)

    def clear(self) -> None:
        """End all that is left."""
        for process in self.all():
            process.kill()
        self.popen.wait()


@contextmanager
def steer(folder: Path, *arguments: object) -> Iterator[Process]:
    """`steer ARGUMENTS` in the background; what it prints goes to a file in `folder`."""
    given = [*map(str, arguments)]
    process = Process(folder, lambda log: Forked(main, given, log=log, variables=QUIET))
    try:
        yield process
    finally:
        process.clear()


def main_under(limit: Callable[[], object], arguments: list[str]) -> None:
    """`steer ARGUMENTS` in this process, once `limit` was called."""
    limit()
    main(arguments)


def without_root_rights() -> None:
    """From here on rights of files count for root too."""
    if os.geteuid() == 0:
        libc, who, rights = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(CAPABILITIES_V3, 0), (ctypes.c_uint32 * 6)()
        assert not libc.capget(who, rights)
        for place in (0, 1):  # those in effect, and those that may be taken
            rights[place] &= ~(1 << CAP_DAC_OVERRIDE | 1 << CAP_DAC_READ_SEARCH)
        assert not libc.capset(who, rights)


def dask(arguments: list[str], log: Path) -> subprocess.Popen[bytes]:
    """The command `dask`; what it prints goes to a file."""
    command, variables = [sys.executable, "-m", "dask", *arguments], {**os.environ, **QUIET}
    with log.open("wb") as file:
        return subprocess.Popen(command, env=variables, stdout=file, stderr=file, start_new_session=True)


class DaskCluster:
    """A scheduler and a worker with one thread, at one address also when they start again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.processes: list[Process] = []

    def __enter__(self) -> DaskCluster:
        self.start()
        return self

    def __exit__(self, *failure: object) -> None:
        for process in self.processes:
            process.clear()

    def start(self) -> None:
        scheduler = ["scheduler", "--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard", "--no-show"]
        worker = ["worker", self.address, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
        worker += ["--local-directory", str(self.folder)]
        self.processes = [Process(self.folder, partial(dask, arguments)) for arguments in (scheduler, worker)]

    def kill_scheduler(self) -> None:
        self.processes[0].kill()

    def restart(self) -> None:
        """As a supervisor would."""
        self.__exit__()
        self.start()


def rows(out: Path) -> list[Row]:
    """All whole rows of a journal, in their order."""
    return [told for told in lines(out) if isinstance(told, Row)]


def lines(out: Path) -> list[Row | set[str]]:
    path = out / JOURNAL
    if not path.exists():
        return []
    told = (parsed(line) for line in path.read_bytes().split(b"\n"))
    return [one for one in told if one is not None]


def in_flight(out: Path) -> set[str]:
    """The keys that were begun and have no row after that."""
    keys: set[str] = set()
    for told in lines(out):
        if isinstance(told, Row):
            keys.discard(told.key)
        else:
            keys |= told
    return keys


def wait_until(happened: Callable[[], object], what: str, within_s: float = PATIENCE_S) -> None:
    end = time.monotonic() + within_s
    while not happened():
        assert time.monotonic() < end, f"{what}: not within {within_s:.0f} s"
        time.sleep(0.03)


def wait_for_rows(out: Path, count: int, process: Process) -> bool:
    """Until the journal has so many rows; False if the process came to its end before."""
    wait_until(lambda: len(rows(out)) >= count or process.popen.poll() is not None, f"{count} rows\n{process.text()}")
    return process.popen.poll() is None


def interrupt(process: Process, number: signal.Signals, group: bool) -> None:
    """Send a signal to a process alone (`kill`) or to its group (Ctrl-C in a terminal)."""
    (os.killpg if group else os.kill)(process.popen.pid, number)
