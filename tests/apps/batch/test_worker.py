"""The pipeline of a worker: errors are rows, stages overlap, and nothing stays behind."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from apps.batch.digest import digest, size_and_time
from apps.batch.jobs import Job, Row
from apps.batch.worker import Done, run
from tests.apps.batch.upper import Upper, UpperWorker, jobs_in

WAIT_S = 20.0


def by_key(rows: Iterator[Row]) -> dict[str, Row]:
    return {row.key: row for row in rows}


def test_rows_tell_all_of_what_was_done(tmp_path: Path) -> None:
    (job,) = jobs_in(tmp_path, {"deep/a.txt": "abc"})
    (row,) = run(Upper().open(), [[job]])
    assert job.target is not None and job.target.read_text() == "ABC"
    assert row == Row(
        "deep/a.txt",
        str(job.source),
        "",
        digest(job.source),
        size_and_time(job.source),
        "capitals",
        digest(job.target),
        size_and_time(job.target),
        3.0,
        row.took,
        {"text": "ABC"},
    )
    assert 0 < row.took < WAIT_S


def test_an_error_is_its_own_files_row_and_the_rest_of_its_lot_is_done(tmp_path: Path) -> None:
    texts = {"a": "one", "b": "bad read", "c": "bad work", "d": "bad keep", "e": "two"}
    jobs = jobs_in(tmp_path, texts)
    jobs.append(Job(tmp_path / "in" / "none", tmp_path / "out" / "none", "none"))
    rows = by_key(run(Upper().open(), [jobs]))
    assert {key: row.error for key, row in rows.items()} == {
        "a": "",
        "b": "ValueError: read does not like 'bad read'",
        "c": "ValueError: work does not like 'bad work'",
        "d": "ValueError: keep does not like 'bad keep'",
        "e": "",
        "none": f"{tmp_path / 'in' / 'none'}: no such file",
    }
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "e"]
    for key in "bcd":  # so that the same failure is known again
        assert rows[key].input == digest(jobs[0].source.with_name(key)) and not rows[key].output
        assert rows[key].read == size_and_time(jobs[0].source.with_name(key))


def test_a_lot_that_fails_is_tried_one_by_one(tmp_path: Path) -> None:
    worked: list[list[str]] = []

    class Together(UpperWorker):
        def work(self, jobs: Sequence[Job], values: Sequence[str]) -> list[str]:
            worked.append([job.key for job in jobs])
            if len(jobs) > 1:
                raise MemoryError("too much at once")
            return super().work(jobs, values)

    rows = by_key(run(Together(), [jobs_in(tmp_path, {"a": "1", "b": "2", "c": "bad read"})]))
    assert worked == [["a", "b"], ["a"], ["b"]]
    assert [bool(rows[key].error) for key in "abc"] == [False, False, True]


def test_a_lot_of_which_nothing_can_be_read_is_not_worked_on(tmp_path: Path) -> None:
    class Idle(UpperWorker):
        def work(self, jobs: Sequence[Job], values: Sequence[str]) -> list[str]:
            raise AssertionError

    (row,) = run(Idle(), [jobs_in(tmp_path, {"a": "bad read"})])
    assert "read does not like" in row.error


def test_a_file_that_changes_while_it_is_read_is_an_error_and_no_known_one(tmp_path: Path) -> None:
    class Disturbed(UpperWorker):
        def read(self, job: Job) -> str:
            text = super().read(job)
            job.source.write_text(text * 2)
            return text

    (job,) = jobs_in(tmp_path, {"a": "abc"})
    (row,) = run(Disturbed(), [[job]])
    assert row.error == f"{job.source}: was changed while it was read"
    assert (row.input, row.read) == ("", (0, 0)) and job.target is not None and not job.target.exists()


def test_an_error_behind_the_output_is_told_beside_it(tmp_path: Path) -> None:
    class Half(UpperWorker):
        def keep(self, job: Job, value: str) -> Done:
            done = super().keep(job, value)
            return Done(done.seconds, done.result, "no picture")

    (job,) = jobs_in(tmp_path, {"a": "abc"})
    (row,) = run(Half(), [[job]])
    assert job.target is not None and row.output == digest(job.target)
    assert (row.error, row.result) == ("no picture", {"text": "ABC"})


def test_while_one_is_worked_on_the_next_is_read_and_the_last_is_written(tmp_path: Path) -> None:
    """Each step of the middle waits until the other two are in theirs: one after the other would time out."""
    reading, working, keeping = (threading.Event() for _ in range(3))
    met: dict[str, bool] = {}

    class Meeting(UpperWorker):
        def read(self, job: Job) -> str:
            if job.key == "c":
                reading.set()
                met["read"] = working.wait(WAIT_S) and keeping.wait(WAIT_S)
            return super().read(job)

        def work(self, jobs: Sequence[Job], values: Sequence[str]) -> list[str]:
            if jobs[0].key == "b":
                working.set()
                met["work"] = reading.wait(WAIT_S) and keeping.wait(WAIT_S)
            return super().work(jobs, values)

        def keep(self, job: Job, value: str) -> Done:
            if job.key == "a":
                keeping.set()
                met["keep"] = reading.wait(WAIT_S) and working.wait(WAIT_S)
            return super().keep(job, value)

    rows = list(run(Meeting(), [[job] for job in jobs_in(tmp_path, {"a": "1", "b": "2", "c": "3"})]))
    assert met == {"read": True, "work": True, "keep": True}
    assert [row.key for row in rows] == ["a", "b", "c"] and not any(row.error for row in rows)


def test_lots_are_taken_one_ahead_of_the_work(tmp_path: Path) -> None:
    taken: list[str] = []
    worked: list[tuple[str, list[str]]] = []

    def lots() -> Iterator[list[Job]]:
        for job in jobs_in(tmp_path, dict.fromkeys("abcd", "x")):
            taken.append(job.key)
            yield [job]

    class Noting(UpperWorker):
        def work(self, jobs: Sequence[Job], values: Sequence[str]) -> list[str]:
            worked.append((jobs[0].key, list(taken)))
            return super().work(jobs, values)

    assert len(list(run(Noting(), lots()))) == 4
    assert worked == [("a", [*"ab"]), ("b", [*"abc"]), ("c", [*"abcd"]), ("d", [*"abcd"])]


def test_leaving_early_ends_the_threads_and_what_is_begun_is_whole(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    rows = run(Upper().open(), [[job] for job in jobs_in(tmp_path, dict.fromkeys("abcdefgh", "x"))])
    assert next(rows).key == "a"
    assert set(threading.enumerate()) > before
    rows.close()
    assert set(threading.enumerate()) == before
    written = sorted((tmp_path / "out").iterdir())
    assert 1 <= len(written) < 8 and all(path.read_text() == "X" for path in written)


def test_what_breaks_the_source_of_lots_ends_the_threads_too(tmp_path: Path) -> None:
    before = set(threading.enumerate())

    def lots() -> Iterator[list[Job]]:
        yield jobs_in(tmp_path, {"a": "x"})
        raise OSError("the journal is gone")

    with pytest.raises(OSError, match="the journal is gone"):
        list(run(Upper().open(), lots()))
    assert set(threading.enumerate()) == before


class Sound:
    """What can be looked at weakly."""


@pytest.mark.parametrize("fails", ["", "work", "keep"])
def test_nothing_of_a_finished_lot_stays_in_memory(tmp_path: Path, fails: str) -> None:
    """At most four lots are on their way: one read ahead, one at work, one being written, one whose rows are told."""
    made: list[weakref.ref[Sound]] = []
    most = 0

    class Holding(UpperWorker):
        def read(self, job: Job) -> Any:
            nonlocal most
            gc.collect()
            most = max(most, sum(one() is not None for one in made))
            value = Sound()
            made.append(weakref.ref(value))
            return value

        def work(self, jobs: Sequence[Job], values: Sequence[Any]) -> list[Any]:
            if fails == "work":
                raise ValueError
            return list(values)

        def keep(self, job: Job, value: Any) -> Done:
            if fails == "keep":
                raise ValueError
            assert job.target is not None
            job.target.parent.mkdir(exist_ok=True)
            job.target.write_text("")
            return Done(1.0)

    gc.collect()
    gc.freeze()  # what was imported since the tests were collected
    rows = run(Holding(), [[job] for job in jobs_in(tmp_path, {f"{n:02}": "x" for n in range(12)})])
    assert all(bool(row.error) == bool(fails) for row in rows)
    assert len(made) == 12 and most <= 4
    gc.collect()
    assert not any(one() for one in made)
