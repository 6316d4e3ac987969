from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from hooks import threads
from hooks.threads import be_single, busy_cores, busy_notice

TASKS = Path("/proc/self/task")


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def threads_after_work(start: Callable[[], None]) -> tuple[int, int]:
    """What torch says in a new thread, and how many threads of the system an operation there has begun."""

    def work() -> tuple[int, int]:
        start()
        before = len(os.listdir(TASKS))
        torch.ones(10**6).exp_()
        return torch.get_num_threads(), len(os.listdir(TASKS)) - before

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


@pytest.mark.skipif(not TASKS.exists(), reason="threads are counted where the system lists them")
def test_a_single_thread_begins_no_others() -> None:
    torch.ones(10**6).exp_()
    assert threads_after_work(lambda: None) == (3, 2)
    assert threads_after_work(be_single) == (1, 0)


def test_other_threads_keep_theirs() -> None:
    with ThreadPoolExecutor(1, initializer=be_single) as pool:
        assert pool.submit(torch.get_num_threads).result() == 1
        assert torch.get_num_threads() == 3
        with ThreadPoolExecutor(1) as later:
            assert later.submit(torch.get_num_threads).result() == 3
        assert pool.submit(torch.get_num_threads).result() == 1


@pytest.mark.parametrize(
    ("load", "own_s", "busy"), [(2.5, 0.0, 2.5), (2.5, 60.0, 1.5), (0.5, 60.0, 0.0), (0.0, 0.0, 0.0)]
)
def test_the_load_of_other_programs(load: float, own_s: float, busy: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "BEGAN", threads.time.monotonic())
    monkeypatch.setattr("os.getloadavg", lambda: (load, 9.0, 9.0))
    monkeypatch.setattr("time.process_time", lambda: own_s)
    assert busy_cores() == pytest.approx(busy)


@pytest.mark.parametrize(("busy", "count", "told"), [(1.2, 3, True), (1.2, 5, False), (0.3, 3, False)])
def test_a_notice_where_three_threads_have_less_than_three_cores(
    busy: float, count: int, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "busy_cores", lambda: busy)
    monkeypatch.setattr(threads, "cores", lambda: count)
    assert busy_notice().startswith("other programs keep about 1.2 of 3 cores busy" if told else "")
    assert bool(busy_notice()) == told
