"""`Schedule`: when a training writes its checkpoint. And what Ctrl-C does meanwhile."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from steer.parallel import Group

TOGETHER = 20
"""Every so many steps several processes ask each other for the time and for interrupts."""


class Schedule:
    """A checkpoint is due every `every` steps, `minutes` after the last one, at the last step, and at an interrupt.

    With several processes it is the first one's time that counts, and an interrupt of any.
    """

    def __init__(
        self, group: Group, steps: int, every: int, minutes: float | None, asked: Callable[[], bool] = lambda: False
    ) -> None:
        self.group, self.steps, self.every, self.asked = group, steps, every, asked
        self.seconds = float("inf") if minutes is None else 60 * minutes
        self.last = time.monotonic()
        self.stopped = False

    def regular(self, done: int) -> bool:
        """Whether it is due by the number of steps alone."""
        return done % self.every == 0 or done == self.steps

    def due(self, done: int) -> bool:
        """Whether it is due after `done` steps; to be asked in every process, once a step. Sets `stopped`."""
        late = False
        if self.group.size == 1 or done % TOGETHER == 0:
            told = self.group.together(lambda: (time.monotonic() - self.last >= self.seconds, self.asked()))
            late, self.stopped = told[0][0], any(asked for _, asked in told)
        due = late or self.stopped or self.regular(done)
        if due:
            self.last = time.monotonic()
        return due


@contextmanager
def interrupts_noted() -> Iterator[Callable[[], bool]]:
    """Inside, Ctrl-C interrupts nothing: the function that is given says whether it was pressed. A second one does.

    Only in the main thread, which alone gets signals; elsewhere, and where Ctrl-C is ignored, nothing changes.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before in (signal.SIG_IGN, None):
        yield lambda: False
        return
    pressed: list[int] = []

    def note(number: int, frame: Any) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(number)

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)
    if pressed:  # in the last step
        raise KeyboardInterrupt
