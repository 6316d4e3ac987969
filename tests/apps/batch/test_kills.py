"""kill -9 of workers, the scheduler and the command itself at random moments of a long job; Ctrl-C and SIGTERM.

AUDIOSTEER_KILLS says how many kills there are in all (4), of a job of 120 files; with 20 it has 500, and takes minutes.
"""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from tests.apps.batch.cluster import (
    DaskCluster,
    Process,
    in_flight,
    interrupt,
    lines,
    rows,
    steer,
    wait_for_rows,
    wait_until,
)
from tests.apps.batch.conftest import FILES, KILLS, here, outputs, write_sounds

pytest.importorskip("distributed", reason="a cluster is Dask's")

WORKERS, SCHEDULERS = round(KILLS * 7 / 20), round(KILLS * 6 / 20)
MAINS = KILLS - WORKERS - SCHEDULERS
ENDS_S = 60.0
"""Within so long a command that was told to end, or lost its scheduler, has ended."""


class Job:
    """A command on many files that is killed and run again, and what was in flight at each kill of it."""

    def __init__(self, arguments: list[str], out: Path, log: Path, seed: int) -> None:
        self.arguments, self.out, self.log = [*arguments, "-o", str(out)], out, log
        self.random = random.Random(seed)
        self.lost: list[tuple[int, set[str]]] = []

    def moment(self, process: Process, kills: int) -> None:
        """Wait until a random number of rows more, of which `kills` as many are left in the job."""
        there = len(rows(self.out))
        more = self.random.randint(1, max(1, (FILES - 40 - there) // kills))
        assert wait_for_rows(self.out, there + more, process), process.text()

    def ended(self) -> None:
        """Note what was in flight when the command ended."""
        self.lost.append((len(lines(self.out)), in_flight(self.out)))

    def check(self, undisturbed: dict[str, bytes]) -> int:
        """All is done and nothing twice but what was in flight; gives the number of these."""
        assert outputs(self.out) == undisturbed  # no partial file either
        told = lines(self.out)
        assert sorted(row.key for row in rows(self.out)) == sorted(undisturbed)  # a row each
        assert not any(row.error for row in rows(self.out))
        begun: set[str] = set()
        again = 0
        for number, line in enumerate(told):
            if isinstance(line, set):
                twice = line & begun
                flying = set().union(*(keys for end, keys in self.lost if end <= number))
                assert twice <= flying
                again += len(twice)
                begun |= line
        return again


def gone(process: Process) -> None:
    """Waits until no descendant is left."""
    wait_until(lambda: not process.all(), f"left behind: {process.all()}", ENDS_S)


@pytest.fixture
def job(many: Path, edits: list[str], tmp_path: Path, request: pytest.FixtureRequest) -> Job:
    return Job(["edit", str(many), *edits], tmp_path / "out", tmp_path, seed=len(request.node.name))


def finish(job: Job, undisturbed: dict[str, bytes]) -> int:
    here(*job.arguments)
    return job.check(undisturbed)


def test_workers_and_main_are_killed(job: Job, undisturbed: dict[str, bytes]) -> None:
    """Workers under a main that goes on; then half of the mains, whose workers die with them."""
    mains = max(1, MAINS // 2)
    for kill in range(mains):
        with steer(job.log, *job.arguments, "--workers", 2) as process:
            for left in range(WORKERS if kill == 0 else 0, 0, -1):
                job.moment(process, left + mains)
                wait_until(process.workers, "no worker lives")
                job.random.choice(process.workers()).kill()
            job.moment(process, mains - kill)
            process.kill()
            gone(process)
            job.ended()
    again = finish(job, undisturbed)
    print(f"{WORKERS} workers and {mains} mains were killed, {again} of {FILES} files were done twice")


def test_main_is_killed_in_one_process(job: Job, undisturbed: dict[str, bytes]) -> None:
    mains = MAINS - MAINS // 2
    for kill in range(mains):
        with steer(job.log, *job.arguments) as process:
            job.moment(process, mains - kill)
            process.kill()
            job.ended()
    again = finish(job, undisturbed)
    print(f"{mains} mains were killed, {again} of {FILES} files were done twice")
    assert again <= 3 * mains  # one is read, one is in the model, one is written


def test_scheduler_is_killed(job: Job, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    with DaskCluster(tmp_path) as cluster:
        for kill in range(SCHEDULERS):
            with steer(job.log, *job.arguments, "--cluster", cluster.address) as process:
                job.moment(process, SCHEDULERS - kill)
                cluster.kill_scheduler()
                assert process.ended(ENDS_S) == 2
                assert process.text() == "steer: the scheduler was lost; the same command goes on when it is back\n"
                gone(process)
                job.ended()
            cluster.restart()
        with steer(job.log, *job.arguments, "--cluster", cluster.address) as process:  # its tasks outlive it
            assert wait_for_rows(job.out, len(rows(job.out)) + 1, process)
            process.kill()
            job.ended()
        here(*job.arguments, "--cluster", cluster.address)
        again = job.check(undisturbed)
    print(f"{SCHEDULERS} schedulers were killed and a main, {again} of {FILES} files were done twice")


@pytest.mark.parametrize(
    ("number", "group", "workers"), [(signal.SIGINT, True, 2), (signal.SIGTERM, False, 2), (signal.SIGTERM, False, 0)]
)
def test_a_signal_ends_it_in_order(
    number: signal.Signals, group: bool, workers: int, job: Job, undisturbed: dict[str, bytes]
) -> None:
    with steer(job.log, *job.arguments, "--workers", workers) as process:
        assert wait_for_rows(job.out, 20, process)
        if not workers:
            # held while the second starts, which takes as long as many files do
            process.popen.send_signal(signal.SIGSTOP)
            with steer(job.log, *job.arguments) as second:
                assert second.ended() == 2
                assert "another batch is at work in this folder" in second.text()
                assert len(second.text().splitlines()) == 1
            assert process.popen.poll() is None
            process.popen.send_signal(signal.SIGCONT)
        interrupt(process, number, group)
        assert process.ended(ENDS_S) == 130
        assert not process.text().strip()
        gone(process)
    job.ended()
    assert (job.out / "journal.jsonl").read_bytes().endswith(b"\n")
    assert not [name for name in outputs(job.out) if name.endswith(".partial")]
    finish(job, undisturbed)


def test_ctrl_c_while_workers_start(job: Job) -> None:
    with steer(job.log, *job.arguments, "--workers", 2) as process:
        wait_until(process.workers, "no worker lives")
        interrupt(process, signal.SIGINT, group=True)
        assert process.ended(ENDS_S) == 130
        assert not process.text().strip()
        gone(process)
    assert not rows(job.out)


def test_transcribe_is_killed(tmp_path: Path) -> None:
    """Noise, of which Whisper is not sure and draws lots: each sound draws its own."""
    write_sounds(tmp_path / "in", 24)  # three lots
    out, whole = tmp_path / "out", tmp_path / "whole"
    arguments = ["transcribe", tmp_path / "in", "--model", "starter:asr", "-o"]
    with steer(tmp_path, *arguments, out) as process:
        assert wait_for_rows(out, 1, process)
        process.kill()
    assert len(rows(out)) < 24
    for folder in (out, whole):
        here(*arguments, folder)
    assert len(rows(out)) == 24
    assert outputs(out) == outputs(whole)
