"""Runs in threads of their own, as the page has them: each waits at events that the tests set, never for a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event

import pytest

from apps.page.runs import Runs, Stopped
from apps.page.settings import PageError

LONG_S = 20.0
"""So long a test waits for what has to happen; all of it happens within milliseconds, and WAKE_S at most."""


class Run:
    """A run that writes a file and then computes until it is let go; what it told, and how it ended."""

    def __init__(self, pool: ThreadPoolExecutor, runs: Runs, session: str, done: list[str]) -> None:
        self.runs, self.session, self.done = runs, session, done
        self.computes, self.go = Event(), Event()
        self.told: list[str] = []
        self.folder = Path()
        self.future: Future[None] = pool.submit(self._run)

    def _run(self) -> None:
        with self.runs.run(self.session, lambda stage, share: self.told.append(stage)) as (self.folder, report):
            self.done.append(self.session)
            (self.folder / "half.wav").write_text("half")
            self.computes.set()
            assert self.go.wait(LONG_S)
            report("next", 0.5)

    def started(self) -> Run:
        assert self.computes.wait(LONG_S)
        return self

    def waits(self) -> Run:
        """Until it stands in line and says so."""
        until(lambda: any(stage.startswith("waiting") for stage in self.told))
        assert not self.computes.is_set()
        return self

    def end(self) -> None:
        """Let it go on to its end; raises what it raised."""
        self.go.set()
        self.future.result(LONG_S)


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + LONG_S
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.002)


Start = Callable[..., Run]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts runs, and lets all that are left go at the end: `start(runs, "ann")`."""
    started: list[Run] = []
    order: list[str] = []
    with ThreadPoolExecutor(32) as pool:

        def begin(runs: Runs, session: str) -> Run:
            started.append(Run(pool, runs, session, order))
            return started[-1]

        yield begin
        for run in started:
            run.go.set()


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_so_many_compute_at_once_and_never_more(tmp_path: Path, at_once: int) -> None:
    runs = Runs(tmp_path, waiting=30, at_once=at_once)
    # each waits for `at_once` of them to be inside: with fewer at a time this would not end
    together, lock, inside, most = Barrier(at_once), threading.Lock(), 0, 0

    def compute(number: int) -> None:
        nonlocal inside, most
        with runs.run(f"session {number}", lambda stage, share: None):
            with lock:
                inside += 1
                most = max(most, inside)
            together.wait(LONG_S)
            time.sleep(0.005)  # room for one too many
            with lock:
                inside -= 1

    with ThreadPoolExecutor(4 * at_once) as pool:
        list(pool.map(compute, range(4 * at_once)))
    assert most == at_once


def test_first_come_first_served(tmp_path: Path, start: Start) -> None:
    runs = Runs(tmp_path, at_once=1)
    names = list("abcde")
    inside = [start(runs, names[0]).started()]
    inside += [start(runs, name).waits() for name in names[1:]]
    assert [run.told[0] for run in inside[1:]] == [f"waiting, number {place} in line" for place in (1, 2, 3, 4)]
    for run in inside:
        run.started().end()
    assert inside[0].done == names


def test_too_many_are_refused_at_once_and_taken_when_there_is_room(tmp_path: Path, start: Start) -> None:
    runs = Runs(tmp_path, waiting=2, at_once=1)
    first, second, third = start(runs, "a").started(), start(runs, "b").waits(), start(runs, "c").waits()
    with pytest.raises(PageError, match="^2 runs are waiting already: please try again in a minute$"):
        start(runs, "d").end()
    assert files(tmp_path) == [str((first.folder / "half.wav").relative_to(tmp_path))]
    first.end()
    fourth = start(runs, "d").waits()
    for run in (second, third, fourth):
        run.started().end()


def test_what_waits_and_is_stopped_leaves_the_line(tmp_path: Path, start: Start) -> None:
    runs = Runs(tmp_path, waiting=2, at_once=1)
    first, second, third = start(runs, "a").started(), start(runs, "b").waits(), start(runs, "c").waits()
    assert runs.stop("b")
    with pytest.raises(Stopped, match=r"^Stopped\.$"):
        second.future.result(LONG_S)
    assert not second.computes.is_set()
    until(lambda: third.told[-1] == "waiting, number 1 in line")
    fourth = start(runs, "d").waits()  # there is room again
    for run in (first, third, fourth):
        run.started().end()


def test_what_computes_and_is_stopped_ends_at_its_next_report(tmp_path: Path, start: Start) -> None:
    runs = Runs(tmp_path, at_once=1)
    earlier, run, other = start(runs, "a").started(), start(runs, "a").waits(), start(runs, "b").waits()
    earlier.end()
    run.started()
    assert runs.stop("a")
    assert not run.future.done()  # it did not report yet
    with pytest.raises(Stopped):
        run.end()
    assert "next" not in run.told
    # what the session made before stays, and the others go on
    assert not run.folder.exists()
    assert files(earlier.folder) == ["half.wav"]
    other.started().end()


def test_there_is_nothing_to_stop_where_nothing_goes_on(tmp_path: Path, start: Start) -> None:
    runs = Runs(tmp_path)
    assert not runs.stop("a")
    start(runs, "a").started().end()
    assert not runs.stop("a")
    # and an earlier stop does not reach what comes later
    start(runs, "a").started().end()


def test_sessions_do_not_stop_each_other(tmp_path: Path, start: Start) -> None:
    runs = Runs(tmp_path, at_once=2)
    one, two = start(runs, "a").started(), start(runs, "b").started()
    waiting, mine = start(runs, "b").waits(), start(runs, "a").waits()
    assert one.folder.parent != two.folder.parent
    runs.forget("a")
    for run in (one, mine):
        with pytest.raises(Stopped):
            run.end()
    assert files(two.folder) == ["half.wav"]
    two.end()
    waiting.started().end()
    assert waiting.folder.parent == two.folder.parent != waiting.folder


def test_a_session_that_is_over_leaves_nothing(tmp_path: Path, start: Start) -> None:
    runs = Runs(tmp_path, at_once=1)
    done, computing = start(runs, "a"), start(runs, "a")
    done.started().end()
    computing.started()
    waiting = start(runs, "a").waits()
    assert len(files(tmp_path)) == 2
    runs.forget("a")
    assert not files(tmp_path)
    for run in (computing, waiting):
        with pytest.raises(Stopped):
            run.end()
    assert not list(tmp_path.iterdir())
    runs.forget("a")  # it is over already
    runs.forget("never came")


def test_a_session_that_is_over_just_before_its_turn_leaves_nothing(tmp_path: Path, start: Start) -> None:
    runs = Runs(tmp_path, at_once=1)
    first = start(runs, "a").started()

    def last_word(stage: str, share: float) -> None:
        """The tab is closed, and its turn comes before its next report."""
        runs.forget("b")
        first.end()

    with pytest.raises(Stopped), runs.run("b", last_word):
        pytest.fail("it began to compute")
    assert list(tmp_path.iterdir()) == [first.folder.parent]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, GeneratorExit])
def test_a_run_that_fails_frees_its_place_and_leaves_no_files(tmp_path: Path, error: type[BaseException]) -> None:
    runs = Runs(tmp_path, waiting=0, at_once=1)
    for _ in range(3):
        with pytest.raises(error), runs.run("a", lambda stage, share: None) as (folder, _):
            (folder / "half.wav").write_text("half")
            raise error
    assert not files(tmp_path)
    with runs.run("a", lambda stage, share: None) as (folder, _):
        (folder / "whole.wav").write_text("whole")
    assert files(folder) == ["whole.wav"]


def test_a_report_that_fails_while_it_waits_frees_its_place(tmp_path: Path, start: Start) -> None:
    runs = Runs(tmp_path, waiting=1, at_once=1)
    first = start(runs, "a").started()

    def left(stage: str, share: float) -> None:
        raise OSError("nobody listens")

    for _ in range(2):  # the second would be refused, were the first still in line
        with pytest.raises(OSError, match="nobody listens"), runs.run("b", left):
            pass
    first.end()
    assert not runs.stop("b")
