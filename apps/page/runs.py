"""`Runs`: whose turn it is to compute, and how a run is ended by its user or by a tab that is closed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Condition, Event

from apps.page.settings import PageError
from steer.editing.editor import Report

AT_ONCE = 2
WAKE_S = 0.25
"""How often a run that waits tells where it stands."""


class Stopped(PageError):
    """A run that was ended before it was done."""


class Runs:
    """Runs by session: `at_once` compute, `waiting` more stand in line. Each has a folder below `folder`.

    The files of a session stay until it is forgotten, those of a run that fails go at once.
    """

    def __init__(self, folder: Path, waiting: int = 10, at_once: int = AT_ONCE) -> None:
        self.folder, self.waiting, self.at_once = folder, waiting, at_once
        self._line: list[Event] = []
        self._stops: dict[str, set[Event]] = {}
        self._folders: dict[str, Path] = {}
        self._changed = Condition()

    @contextmanager
    def run(self, session: str, report: Report) -> Iterator[tuple[Path, Report]]:
        """A run, once it is its turn: its folder, and a report that raises `Stopped` once the session is stopped.

        Raises:
            PageError: too many wait already.
            Stopped: stopped while it waited.
        """
        stop = Event()

        def checked(stage: str, share: float) -> None:
            if stop.is_set():
                raise Stopped("Stopped.")
            report(stage, share)

        with self._changed:
            if len(self._line) >= self.at_once + self.waiting:
                raise PageError(f"{self.waiting} runs are waiting already: please try again in a minute")
            self._line.append(stop)
            self._stops.setdefault(session, set()).add(stop)
        try:
            self._wait(stop, checked)
            place = self._place(session, stop)
            try:
                yield place, checked
            except BaseException:
                shutil.rmtree(place, ignore_errors=True)
                raise
        finally:
            with self._changed:
                self._line.remove(stop)
                self._stops[session].discard(stop)
                if not self._stops[session]:
                    del self._stops[session]
                self._changed.notify_all()

    def _wait(self, me: Event, report: Report) -> None:
        while True:
            with self._changed:
                before = self._line.index(me) - self.at_once + 1
                if before <= 0:
                    return
                self._changed.wait(WAKE_S)
            report(f"waiting, number {before} in line", 0.0)

    def _place(self, session: str, stop: Event) -> Path:
        with self._changed:
            if stop.is_set():  # else it would make a folder for a session that may be forgotten
                raise Stopped("Stopped.")
            if session not in self._folders:
                self._folders[session] = Path(tempfile.mkdtemp(prefix="session-", dir=self.folder))
            return Path(tempfile.mkdtemp(prefix="run-", dir=self._folders[session]))

    def stop(self, session: str) -> bool:
        """End what a session has going, at its next report; whether there was something."""
        with self._changed:
            going = self._stops.get(session, set())
            for stop in going:
                stop.set()
            return bool(going)

    def forget(self, session: str) -> None:
        """The session is over: end what it has going and remove its files."""
        self.stop(session)
        with self._changed:
            folder = self._folders.pop(session, None)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
