"""A batch from the journal and back to it, call after call."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from apps.batch.jobs import BatchError, Job
from apps.batch.journal import JOURNAL, Journal
from apps.batch.run import Finished, How, do_batch, length_of
from tests.apps.batch.upper import Upper, UpperWorker, jobs_in

TEXTS = {"a": "one", "b": "two", "deep/c": "three", "bad": "bad work"}


@pytest.fixture
def jobs(tmp_path: Path) -> list[Job]:
    return jobs_in(tmp_path, TEXTS)


def done(jobs: Sequence[Job], how: How = How(), out: str = "out") -> Finished:  # noqa: B008
    folder = jobs[0].source.parents[1] / out
    return do_batch(Upper(), jobs, folder, how, files=2)


def counts(finished: Finished) -> tuple[int, int]:
    return finished.this_call.files, finished.this_call.failed


def test_rows_come_in_the_order_of_the_jobs_and_once(jobs: list[Job], tmp_path: Path) -> None:
    first = done(jobs)
    assert [row.key for row in first.rows] == list(TEXTS) and counts(first) == (4, 1)
    assert {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()} == {
        "a",
        "b",
        "deep/c",
        JOURNAL,
    }
    journal = (tmp_path / "out" / JOURNAL).read_bytes()
    again = done(jobs)
    assert counts(again) == (0, 0) and again.rows == first.rows
    assert (tmp_path / "out" / JOURNAL).read_bytes() == journal


def test_what_changed_is_done_again_and_nothing_else(jobs: list[Job]) -> None:
    first = done(jobs)
    jobs[0].source.write_text("new text")
    second = done(jobs)
    assert counts(second) == (1, 0) and second.rows[1:] == first.rows[1:]
    assert jobs[0].target is not None and jobs[0].target.read_text() == "NEW TEXT"
    assert counts(done(jobs, How(retry_failed=True))) == (1, 1)
    assert counts(done(jobs, How(force=True))) == (4, 1)
    fewer = done(jobs[:2])
    assert [row.key for row in fewer.rows] == ["a", "b"] and counts(fewer) == (0, 0)


def test_a_failure_does_not_make_our_own_output_a_strangers(jobs: list[Job]) -> None:
    done(jobs)
    jobs[0].source.write_text("bad read")
    assert done(jobs).rows[0].error
    jobs[0].source.write_text("good again")
    assert not done(jobs).rows[0].error
    assert jobs[0].target is not None and jobs[0].target.read_text() == "GOOD AGAIN"


def test_what_others_wrote_is_refused_and_stays(jobs: list[Job]) -> None:
    target = jobs[0].target
    assert target is not None
    target.parent.mkdir()
    target.write_text("mine")
    first = done(jobs)
    assert "exists already" in first.rows[0].error and counts(first) == (4, 2) and target.read_text() == "mine"
    assert done(jobs).rows[0] == first.rows[0]  # it is not taken for our failure
    target.unlink()
    assert not done(jobs).rows[0].error
    target.write_text("mine again")
    assert "was changed" in done(jobs).rows[0].error and target.read_text() == "mine again"
    assert not done(jobs, How(force=True)).rows[0].error and target.read_text() == "ONE"


def test_without_an_output_folder_nothing_is_written(jobs: list[Job], tmp_path: Path) -> None:
    bare = [Job(job.source, None, str(job.source)) for job in jobs]
    rows = do_batch(Upper(), bare, None, How()).rows
    assert [row.result.get("text") for row in rows] == ["ONE", "TWO", "THREE", None]
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_what_is_wrong_with_a_single_file_is_raised(jobs: list[Job], tmp_path: Path) -> None:
    alone = How(alone=True)
    with pytest.raises(BatchError, match="in/bad: ValueError: work does not like"):
        do_batch(Upper(), jobs[3:], None, alone)
    (tmp_path / "out" / "a").write_text("mine")
    with pytest.raises(BatchError, match="exists already"):
        do_batch(Upper(), jobs[:1], tmp_path / "out", alone)


def test_what_killed_processes_left_is_cleared(jobs: list[Job], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    left, others = tmp_path / "out" / ".a.01234567.partial", tmp_path / "out" / ".z.01234567.partial"
    left.touch()
    others.touch()
    done(jobs)
    assert not left.exists() and others.exists()


def test_a_folder_is_one_batchs_at_a_time(jobs: list[Job], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with Journal(tmp_path / "out"), pytest.raises(BatchError, match="another batch is at work"):
        done(jobs)
    assert counts(done(jobs)) == (4, 1)


def test_a_task_that_cannot_be_done_touches_nothing(jobs: list[Job], tmp_path: Path) -> None:
    with pytest.raises(BatchError, match="no such model"):
        do_batch(Upper("no such model"), jobs, tmp_path / "out", How())
    with pytest.raises(BatchError, match="choose one"):
        do_batch(Upper(), jobs, tmp_path / "out", How(workers=2, cluster="tcp://x:1"))
    assert not (tmp_path / "out").exists()


@dataclass(frozen=True)
class Stopped(Upper):
    """The machine's SIGTERM comes while the third file is worked on."""

    def open(self) -> UpperWorker:
        class Worker(UpperWorker):
            worked = 0

            def work(self, jobs: Sequence[Job], values: Sequence[str]) -> list[str]:
                self.worked += 1
                if self.worked == 3:
                    os.kill(os.getpid(), signal.SIGTERM)
                return super().work(jobs, values)

        return Worker()


def test_a_batch_that_is_stopped_goes_on(tmp_path: Path) -> None:
    jobs = jobs_in(tmp_path, dict.fromkeys("abcdef", "x"))
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        do_batch(Stopped(), jobs, tmp_path / "out", How())
    assert signal.getsignal(signal.SIGTERM) is before
    with Journal(tmp_path / "out") as journal:
        assert list(journal.rows) == ["a"] and journal.in_flight == {"b", "c", "d"}
    assert (tmp_path / "out" / "b").read_text() == "X"  # what was on its way to the disk came there
    rest = done(jobs)
    assert counts(rest) == (5, 0) and len(rest.rows) == 6 and not any(row.error for row in rest.rows)


def test_a_file_that_cannot_be_read_has_no_length(tmp_path: Path) -> None:
    assert length_of(Job(tmp_path / "none.wav")) == 0.0
