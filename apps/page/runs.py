"""`Runs`: what each session of a browser has going, so that its user (or a closed tab) can end it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Lock

from hooks import AudioSteerError

Report = Callable[[str, float], None]
"""Called with what is being done and how much of it is done, 0 to 1."""


class Stopped(AudioSteerError):
    """A run that was ended by its user."""


class Runs:
    """Runs by session. The results of a session lie in a folder of its own below `folder`, until it ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stops: dict[str, set[Event]] = {}
        self._folders: dict[str, Path] = {}
        self._lock = Lock()

    @contextmanager
    def run(self, session: str, report: Report) -> Iterator[tuple[Path, Report]]:
        """A run: its folder, and a report that raises `Stopped` once the session has been stopped."""
        stop = Event()

        def checked(stage: str, share: float) -> None:
            if stop.is_set():
                raise Stopped("stopped")
            report(stage, share)

        with self._lock:
            self._stops.setdefault(session, set()).add(stop)
            if session not in self._folders:
                self._folders[session] = Path(tempfile.mkdtemp(prefix="session-", dir=self.folder))
            place = Path(tempfile.mkdtemp(prefix="run-", dir=self._folders[session]))
        try:
            yield place, checked
        except BaseException:
            shutil.rmtree(place, ignore_errors=True)
            raise
        finally:
            with self._lock:
                self._stops[session].discard(stop)

    def stop(self, session: str) -> bool:
        """End what a session has going, at its next report; whether there was something."""
        with self._lock:
            going = self._stops.get(session, set())
            for stop in going:
                stop.set()
            return bool(going)

    def forget(self, session: str) -> None:
        """The session is over: end what it has going and remove its files."""
        self.stop(session)
        with self._lock:
            folder = self._folders.pop(session, None)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
