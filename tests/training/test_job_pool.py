"""Processes that do jobs: order, what fails, and the deadline."""

from __future__ import annotations

import os
import time

from training.job_pool import JobPool


class Worker:
    def __init__(self, factor: int) -> None:
        self.factor = factor

    def __call__(self, job: int | str) -> int:
        if job == "die":
            os._exit(3)
        if job == "sleep":
            time.sleep(60)
        return self.factor * int(job)


def test_jobs_come_by_urgency_and_may_lead_to_others() -> None:
    with JobPool(1, Worker, 10) as pool:
        for urgency, job in ((0, 1), (2, 3), (1, 2)):
            pool.add(urgency, job)
        done = []
        for job, result in pool.results():
            done.append((job, result))
            if job == 2:
                pool.add(9, 4)
    assert done == [(1, 10), (2, 20), (3, 30), (4, 40)]


def test_what_a_job_raises_and_a_process_that_dies() -> None:
    with JobPool(2, Worker, 1) as pool:
        for job in ("seven", "die", 8):
            pool.add(0, job)
        results = dict(pool.results())
    assert "ValueError" in results["seven"]
    assert results["die"] == "the process ended with status 3"
    assert results[8] == 8


def test_nothing_runs_on_behind_the_deadline() -> None:
    started = time.monotonic()
    with JobPool(1, Worker, 1) as pool:
        pool.add(0, 5)
        pool.add(1, "sleep")
        assert list(pool.results(started + 15)) == [(5, 5)]
        (process, _) = next(iter(pool.running.values()))
    assert time.monotonic() - started < 30
    assert not process.is_alive()
