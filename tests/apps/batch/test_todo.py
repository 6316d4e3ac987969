"""What is left to do, case by case; and lots of like length."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise, product
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.batch.digest import digest, size_and_time
from apps.batch.jobs import Job, Row
from apps.batch.journal import Journal
from apps.batch.todo import lots, sort_out


class Journalled:
    """What a journal held when it was opened."""

    def __init__(self, *rows: Row, in_flight: Sequence[str] = ()) -> None:
        self.rows, self.in_flight = {row.key: row for row in rows}, set(in_flight)


def fate(job: Job, journal: Journalled, **options: bool) -> str:
    """`do`, `keep` or what it is refused for."""
    todo = sort_out([job], cast(Journal, journal), **options)
    assert len(todo.jobs) + len(todo.kept) + len(todo.refused) == 1
    if todo.refused:
        (row,) = todo.refused
        assert row.key == job.key and "--force" in row.error and str(job.target) in row.error
        return "changed" if "was changed" in row.error else "foreign"
    return "do" if todo.jobs else "keep"


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "in").write_text("source")
    (tmp_path / "out").write_text("target")
    return Job(tmp_path / "in", tmp_path / "out", "out", fingerprint="now")


def done(job: Job, error: str = "") -> Row:
    assert job.target is not None
    row = Row(job.key, str(job.source), error, digest(job.source), size_and_time(job.source), job.fingerprint)
    return row if error else Row(**{**vars(row), "output": digest(job.target), "wrote": size_and_time(job.target)})


def change(path: Path) -> None:
    path.write_text(f"{path.read_text()} and more")


TARGETS = ("missing", "ours", "changed", "foreign")


@pytest.mark.parametrize("target", TARGETS)
def test_the_whole_table(job: Job, target: str) -> None:
    """Each state of the target, with all ways of the rest: 64 cases."""
    assert job.target is not None
    written = done(job)
    if target == "missing":
        job.target.unlink()
    if target == "changed":
        change(job.target)
    for recipe, source, failed, force, retry, flight in product((False, True), repeat=6):
        row = Row(
            job.key,
            str(job.source),
            "no" if failed else "",
            "another" if source else written.input,
            (1, 1) if source else written.read,
            "before" if recipe else job.fingerprint,
            "" if target == "foreign" else written.output,
            (0, 0) if target == "foreign" else written.wrote,
        )
        same = not recipe and not source
        if force or flight:
            expected = "do"
        elif same and failed and not retry:
            expected = "keep"
        elif target in ("changed", "foreign"):
            expected = target
        else:
            expected = "keep" if same and not failed and target == "ours" else "do"
        journal = Journalled(row, in_flight=[job.key] if flight else [])
        case = {"recipe": recipe, "source": source, "failed": failed, "force": force, "retry": retry, "flight": flight}
        assert fate(job, journal, force=force, retry_failed=retry) == expected, case


def test_of_what_no_row_tells(job: Job) -> None:
    assert job.target is not None
    assert fate(job, Journalled()) == "foreign"
    assert fate(job, Journalled(), retry_failed=True) == "foreign"
    assert fate(job, Journalled(), force=True) == "do"
    assert fate(job, Journalled(in_flight=[job.key])) == "do"
    job.target.unlink()
    assert fate(job, Journalled()) == "do"
    assert fate(Job(job.source, None, "k"), Journalled()) == "do"


def test_what_was_written_again_and_killed_before_its_row_is_done_again(job: Job) -> None:
    """The older row tells of another output, and nobody but us changed it."""
    assert job.target is not None
    row = done(job)
    change(job.source)
    change(job.target)
    assert fate(job, Journalled(row)) == "changed"
    assert fate(job, Journalled(row, in_flight=[job.key])) == "do"


def test_touched_but_equal_files_are_not_done_again(job: Job) -> None:
    assert job.target is not None
    row = done(job)
    for path in (job.source, job.target):
        os.utime(path, (1, 1))
        assert fate(job, Journalled(row)) == "keep"
    change(job.source)
    assert fate(job, Journalled(row)) == "do"


def test_other_content_of_equal_size_and_time_is_not_seen(job: Job) -> None:
    """The limit that was chosen: else every call would read every file."""
    row = done(job)
    time = job.source.stat().st_mtime_ns
    job.source.write_text("SOURCE")
    os.utime(job.source, ns=(time, time))
    assert fate(job, Journalled(row)) == "keep"
    os.utime(job.source, ns=(time, time + 1))
    assert fate(job, Journalled(row)) == "do"


def test_a_source_that_could_not_be_read(job: Job) -> None:
    row = Row(job.key, str(job.source), "no such file", recipe=job.fingerprint)
    assert fate(job, Journalled(row)) == "foreign"  # it is there now
    job.source.unlink()
    assert fate(job, Journalled(row)) == "keep"


def test_one_that_is_gone_is_tried_and_fails(job: Job) -> None:
    row = done(job)
    job.source.unlink()
    assert fate(job, Journalled(row)) == "do"


def test_a_folder_in_the_place_of_the_target_stops_nothing(job: Job) -> None:
    assert job.target is not None
    row = done(job)
    job.target.unlink()
    job.target.mkdir()
    assert fate(job, Journalled(row)) == "changed"
    assert fate(job, Journalled()) == "foreign"


def test_a_name_that_is_too_long_is_a_failure_of_its_own(job: Job) -> None:
    assert job.target is not None
    assert fate(Job(job.source, job.target.with_name("x" * 300), "k"), Journalled()) == "do"


def test_a_picture_that_is_missing_is_drawn(job: Job, tmp_path: Path) -> None:
    row, drawn = done(job), Job(job.source, job.target, job.key, tmp_path / "out.png", None, job.fingerprint)
    assert fate(drawn, Journalled(row)) == "do"
    (tmp_path / "out.png").touch()
    assert fate(drawn, Journalled(row)) == "keep"


# --- lots ---

LENGTHS = st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0, 7.0, 99.0]), max_size=30)


@given(LENGTHS, st.integers(1, 5), st.floats(0.5, 20.0), st.randoms())
def test_lots(lengths: list[float], files: int, seconds: float, random: object) -> None:
    jobs = [(Job(Path(str(n)), key=f"{n:02}"), length) for n, length in enumerate(lengths)]
    found = list(lots(jobs, files=files, seconds=seconds))
    flat = [job.key for lot in found for job in lot.jobs]
    of = {job.key: length for job, length in jobs}
    assert sorted(flat) == [job.key for job, _ in jobs]
    assert [of[key] for key in flat] == sorted(lengths, reverse=True)
    for lot in found:
        assert lot.seconds == sum(of[job.key] for job in lot.jobs)
        assert len(lot.jobs) == 1 or (len(lot.jobs) <= files and lot.seconds <= seconds)
    for lot, following in pairwise(found):  # none is left half full
        assert len(lot.jobs) == files or lot.seconds + of[following.jobs[0].key] > seconds
    random.shuffle(jobs)  # type: ignore[attr-defined]
    assert list(lots(jobs, files=files, seconds=seconds)) == found
