"""What is left to do of a batch: what is missing, what changed, and what failed if it shall be tried again."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from apps.batch.digest import digest, size_and_time
from apps.batch.jobs import Job, Row
from apps.batch.journal import Journal
from hooks import AudioSteerError


@dataclass
class Todo:
    """`jobs` are to be done, `kept` are done already (or failed before), `refused` cannot be done as things are."""

    jobs: list[Job] = field(default_factory=list)
    kept: list[Row] = field(default_factory=list)
    refused: list[Row] = field(default_factory=list)


def sort_out(
    jobs: Iterable[Job],
    journal: Journal,
    *,
    force: bool = False,
    retry_failed: bool = False,
    held: Mapping[str, str] | None = None,
) -> Todo:
    """Jobs against the journal. A target that is there and not ours is refused; with `force` all is done again, and
    so is what was in flight, whatever is there of it.

    Jobs without a target have their output in one place, which holds the keys `held`, each in the file that is its
    value; what another version of a sound left there is refused in any case.
    """
    todo = Todo()
    for job in jobs:
        row = journal.rows.get(job.key)
        same = row is not None and row.recipe == job.fingerprint and same_input(job, row)
        state = target_state(job, row) if job.target else held_state(job, row, same, held)
        if held is not None and state == "stale":
            told = f"was changed since it was captured; delete {held[job.key]}, which has the older sound, and go on"
            todo.refused.append(Row(job.key, str(job.source), f"{job.source}: {told}"))
        elif force or job.key in journal.in_flight:
            todo.jobs.append(job)
        elif row is not None and same and row.error and not retry_failed:
            todo.kept.append(row)
        elif state == "changed":
            told = f"{job.target}: was changed since it was written; use --force to overwrite it"
            todo.refused.append(Row(job.key, str(job.source), told))
        elif row is not None and same and not row.error and state == "ours" and has_picture(job):
            todo.kept.append(row)
        elif state == "foreign":
            told = f"{job.target}: exists already; use --force to overwrite it"
            todo.refused.append(Row(job.key, str(job.source), told))
        else:
            todo.jobs.append(job)
    return todo


def same_input(job: Job, row: Row) -> bool:
    try:
        return size_and_time(job.source) == row.read or (bool(row.input) and digest(job.source) == row.input)
    except AudioSteerError:
        return not row.input  # it could not be read before, and cannot be now


def target_state(job: Job, row: Row | None) -> str:
    """Of the output: `missing`, `ours`, `changed` since it was written, or `foreign`, of which no row tells."""
    assert job.target is not None
    if not os.path.lexists(job.target):  # which knows of no name that is too long
        return "missing"
    if row is None or not row.output:
        return "foreign"
    try:
        return "ours" if size_and_time(job.target) == row.wrote or digest(job.target) == row.output else "changed"
    except AudioSteerError:  # a folder, for one
        return "changed"


def has_picture(job: Job) -> bool:
    return job.picture is None or os.path.lexists(job.picture)


def held_state(job: Job, row: Row | None, same: bool, held: Mapping[str, str] | None) -> str:
    """Of a sound in a common place: `missing`, `ours`, or `stale`, when it was captured as it is no more. Where there
    is no place, the row is all there is."""
    if held is None:
        return "ours" if same else "missing"
    if job.key not in held or row is None or row.error:
        return "missing"
    return "ours" if same else "stale"


@dataclass(frozen=True)
class Lot:
    """Jobs that go through the model at once, and how long their sounds are together."""

    jobs: tuple[Job, ...]
    seconds: float


def lots(lengths: Iterable[tuple[Job, float]], *, files: int, seconds: float) -> Iterator[Lot]:
    """Files of like length together, at most `files` of at most `seconds`, or one.

    The longest come first, so that none is left at the end for one worker alone.
    """
    jobs: list[Job] = []
    total = 0.0
    for job, length in sorted(lengths, key=lambda one: (-one[1], one[0].key)):
        if jobs and (len(jobs) == files or total + length > seconds):
            yield Lot(tuple(jobs), total)
            jobs, total = [], 0.0
        jobs.append(job)
        total += length
    if jobs:
        yield Lot(tuple(jobs), total)
