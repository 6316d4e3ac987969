"""How far a batch is, in words and in time."""

from __future__ import annotations

import io
import threading

import pytest

from apps.batch import watch as module
from apps.batch.jobs import Row
from apps.batch.watch import Watch, Work, clock
from apps.messages import shown


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "0:00"),
        (0.4, "0:00"),
        (59.6, "1:00"),
        (61, "1:01"),
        (3599.4, "59:59"),
        (3599.6, "1:00:00"),
        (3723, "1:02:03"),
        (360_000, "100:00:00"),
    ],
)
def test_clock(seconds: float, told: str) -> None:
    assert clock(seconds) == told


def test_speed() -> None:
    assert Work(seconds=30.0, wall=2.0).speed == 15.0
    assert Work(seconds=30.0).speed == 0.0


def test_counts_and_words(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(module.time, "monotonic", lambda: now)
    watch = Watch(files=10, kept=4)
    watch.begin(7200.0)
    assert watch.state() == "0.00 of 2.00 h of sound, 0.0 x real time"
    now = 102.0
    watch.note(Row("a", "a", seconds=1800.0))
    watch.note(Row("b", "b", "no", seconds=1800.0))
    assert watch.work == Work(files=2, failed=1, seconds=3600.0, wall=2.0)
    assert watch.state() == "1.00 of 2.00 h of sound, 1800.0 x real time, 0:02 left, 1 failed"
    watch.note(Row("c", "c", seconds=3600.0))
    assert watch.state() == "2.00 of 2.00 h of sound, 3600.0 x real time, 1 failed"


class Log(io.StringIO):
    """Tells when a line came."""

    def __init__(self) -> None:
        super().__init__()
        self.came = threading.Event()

    def flush(self) -> None:
        if "\n" in self.getvalue():
            self.came.set()


def test_a_line_a_minute_where_nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log()
    monkeypatch.setattr("sys.stderr", log)
    monkeypatch.setattr(module, "LINE_S", 0.05)
    before = set(threading.enumerate())
    with shown(), Watch(files=10, kept=4) as watch:
        watch.begin(20.0)
        watch.note(Row("a", "a", "no", seconds=5.0))
        assert log.came.wait(20.0)
    assert set(threading.enumerate()) == before
    first = log.getvalue().splitlines()[0]
    assert first.startswith("steer: 5 of 10 files, 0.00 of 0.01 h of sound, ") and first.endswith(", 1 failed")


def test_a_short_batch_writes_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Watch(files=1, kept=0) as watch:
        watch.note(Row("a", "a", seconds=5.0))
    assert capsys.readouterr() == ("", "")
    assert watch.work.wall > 0


def test_bars_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with Watch(files=7, kept=3) as watch:
        watch.begin(5.0)
        watch.note(Row("a", "a", seconds=5.0))
        assert watch._progress is not None
        watch._progress.refresh()
    assert "4/7" in screen.getvalue()
