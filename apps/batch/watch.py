"""How far a batch is: bars for people, and a line a minute where nobody looks."""

from __future__ import annotations

import time
from dataclasses import dataclass
from threading import Event, Thread
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from apps.batch.jobs import Row
from apps.messages import is_quiet, log

LINE_S = 60.0


@dataclass
class Work:
    """What one call did: files and seconds of sound, in so many seconds."""

    files: int = 0
    failed: int = 0
    seconds: float = 0.0
    wall: float = 0.0

    @property
    def speed(self) -> float:
        """Seconds of sound a second."""
        return self.seconds / self.wall if self.wall else 0.0


class Watch:
    """Told of each row; shows the state on stderr while it is entered. `kept` of the `files` were done before."""

    def __init__(self, files: int, kept: int) -> None:
        self.files, self.kept, self.total = files, kept, 0.0
        self.work = Work()
        self._start = time.monotonic()
        self._over = Event()
        self._progress: Progress | None = None
        self._thread: Thread | None = None

    def __enter__(self) -> Watch:
        console = Console(stderr=True)
        if console.is_terminal:
            columns = (
                TextColumn("files"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.description}"),
            )
            self._progress = Progress(*columns, console=console, transient=True, disable=is_quiet())
            self._progress.add_task("", total=self.files, completed=self.kept)
            self._progress.start()
        else:
            self._thread = Thread(target=self._tell, name="watch", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.work.wall = time.monotonic() - self._start
        self._over.set()
        if self._progress is not None:
            self._progress.stop()
        if self._thread is not None:
            self._thread.join()

    def begin(self, seconds: float) -> None:
        """The clock starts; so many seconds of sound are to be done."""
        self.total, self._start = seconds, time.monotonic()

    def note(self, row: Row) -> None:
        self.work.files += 1
        self.work.failed += bool(row.error)
        self.work.seconds += row.seconds
        self.work.wall = time.monotonic() - self._start
        if self._progress is not None:
            task = self._progress.task_ids[0]
            self._progress.update(task, advance=1, description=self.state())

    def state(self) -> str:
        """Hours of sound, speed, time left and failures, in words."""
        work = self.work
        words = [f"{work.seconds / 3600:.2f} of {self.total / 3600:.2f} h of sound", f"{work.speed:.1f} x real time"]
        if work.speed and work.seconds < self.total:
            words.append(f"{clock((self.total - work.seconds) / work.speed)} left")
        if work.failed:
            words.append(f"{work.failed} failed")
        return ", ".join(words)

    def _tell(self) -> None:
        while not self._over.wait(LINE_S):
            log.warning(f"steer: {self.kept + self.work.files} of {self.files} files, {self.state()}")


def clock(seconds: float) -> str:
    """Such as 1:02:03 or 2:03."""
    hours, rest = divmod(round(seconds), 3600)
    minutes, rest = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
