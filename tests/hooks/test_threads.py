from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from hooks.threads import be_single

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
