"""Processes that do jobs: order, what fails, and the deadline."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from training.job_pool import JobPool

ROOT = Path(__file__).parents[2]


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
    with JobPool(1, Worker, 1) as pool:
        pool.add(0, 5)
        assert list(pool.results()) == [(5, 5)]  # it has started
        pool.add(0, 6)
        pool.add(1, "sleep")
        started = time.monotonic()
        assert list(pool.results(started + 1)) == [(6, 6)]
        (process, _) = next(iter(pool.running.values()))
    assert time.monotonic() - started < 30
    assert not process.is_alive()


ORPHANED = """
import os, signal
from tests.training.test_job_pool import Worker
from training.job_pool import JobPool
if __name__ == "__main__":
    pool = JobPool(1, Worker, 1)
    pool.add(0, 1)
    assert list(pool.results()) == [(1, 1)]  # it has started
    pool.add(0, "sleep")
    print(next(iter(pool.running.values()))[0].pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_ends_with_the_one_that_started_it(tmp_path: Path) -> None:
    script = tmp_path / "orphaned.py"
    script.write_text(ORPHANED)
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    worker = int(done.stdout)
    end = time.monotonic() + 30
    while psutil.pid_exists(worker) and psutil.Process(worker).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end
        time.sleep(0.05)
