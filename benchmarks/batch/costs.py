"""What batch work costs, measured piece by piece on one thread: the inputs of `benchmarks.batch.scale`.

Times are of the processor, reading and writing beside the model included, so that another process that runs at the same
time hardly counts; only the start of a worker, which is another process itself, is by the clock.
"""

from __future__ import annotations

import pickle
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from apps.batch.digest import digest
from apps.batch.engine import Sender, local_cluster
from apps.batch.jobs import Job, Row
from apps.batch.journal import JOURNAL, Journal, line_of
from apps.batch.run import How, ignore, length_of
from apps.batch.todo import Lot, sort_out
from apps.batch.worker import Done, Worker
from benchmarks.batch.kinds import ENCODER, Kind, kinds
from benchmarks.batch.made import write_voices
from benchmarks.machine import threads
from hooks.errors import require
from steer.recipe import Recipe

SHORT_S, LONG_S = 2.0, 10.0
BUNDLE = 16
"""Files in a bundle."""


@dataclass(frozen=True)
class Work:
    """What a task takes: `file_s` for each file and `sound_s` for each second of it, bytes read and written for each
    second, and bytes of a file's line in the journal and of its row on the way there."""

    sound_s: float
    file_s: float
    read: float
    written: float
    line: float
    row: float


@dataclass(frozen=True)
class Costs:
    """Seconds and bytes: a worker's start with its model; what the client and the scheduler do for a bundle, and the
    bytes of its task and of each job in it; a line in the journal; for each file the header that is read in planning,
    the memory that the plan keeps, and what is looked at when it is done already; the digest of a MB."""

    work: dict[str, Work]
    start_s: float
    bundle_s: float
    task: float
    job: float
    line_s: float
    header_s: float
    planned: float
    kept_s: float
    digest_s: float


def costs(files: int, rounds: int) -> Costs:
    """Measured on so many files of each of two lengths; the least of so many rounds.

    Raises:
        MissingExtraError: Dask is not installed.
    """
    with threads(1), tempfile.TemporaryDirectory() as place:
        return measured(Path(place), files, rounds)


def measured(place: Path, files: int, rounds: int) -> Costs:
    work = {task: work_of(task, kind, place, files, rounds) for task, kind in kinds().items()}
    sae_site = Recipe.build(ENCODER).open().sites["encoder.1"]
    assert sae_site.width is not None and sae_site.frame_rate is not None
    # what is captured are activations in place of features; the model's part of the work is the same
    work["capture"] = replace(work["features"], written=2 * sae_site.width * sae_site.frame_rate)
    edit, folder, out = kinds()["edit"], place / f"edit {SHORT_S:g}", place / "out"
    known = work["edit"]
    began = time.perf_counter()
    edit.batch(folder, out, How(workers=1))
    start_s = time.perf_counter() - began
    jobs = edit.jobs(folder, out)
    rows = edit.batch(folder, out, How())
    megabyte = place / "megabyte"
    megabyte.write_bytes(bytes(2**20))
    return Costs(
        work,
        max(0.0, start_s - files * (known.file_s + SHORT_S * known.sound_s)),
        traffic_s(jobs, 100 * rounds),
        len(pickle.dumps(edit.task)),
        len(pickle.dumps([job.absolute() for job in jobs])) / files,
        journal_s(place, rows, 200 * rounds),
        least(lambda: [length_of(job) for job in jobs], rounds) / files,
        planned_bytes(edit, folder, out) / files,
        kept_s(jobs, out, rounds),
        least(lambda: digest(megabyte), rounds),
    )


def work_of(task: str, kind: Kind, place: Path, files: int, rounds: int) -> Work:
    """From two lengths: what grows with the sound, and what does not; the opening of the model is taken away."""
    took, rows, written = {}, list[Row](), 0
    for seconds in (SHORT_S, LONG_S):
        folder = place / f"{task} {seconds:g}"
        folder.mkdir()
        write_voices(folder, [seconds] * files, kind.sample_rate)
        times = []
        for _ in range(rounds + 1):
            with tempfile.TemporaryDirectory(dir=place) as name:
                out = Path(name)
                times.append(core_s(lambda: rows.extend(kind.batch(folder, out, How()))))  # noqa: B023
                written = size_of(out) - (out / JOURNAL).stat().st_size
        took[seconds] = min(times[1:]) / files  # the first one loads libraries
    sound_s = max(0.0, (took[LONG_S] - took[SHORT_S]) / (LONG_S - SHORT_S))
    opened_s = least(kind.task.open, rounds) / files
    last = rows[-files:]
    return Work(
        sound_s,
        max(0.0, took[SHORT_S] - SHORT_S * sound_s - opened_s),
        size_of(folder) / files / LONG_S,
        written / files / LONG_S,
        sum(len(line_of(row.to_dict())) for row in last) / files,
        len(pickle.dumps(last)) / files,
    )


@dataclass(frozen=True)
class Nothing(Worker):
    """A task that takes no time, so that all of it is traffic."""

    def open(self) -> Nothing:
        return self

    def read(self, job: Job) -> None:
        return None

    def work(self, jobs: Sequence[Job], values: Sequence[Any]) -> Sequence[Any]:
        return values

    def keep(self, job: Job, value: Any) -> Done:
        return Done(0.0)


def traffic_s(jobs: Sequence[Job], bundles: int) -> float:
    """Processor time for each bundle in this process, where client and scheduler are, with no work and no journal."""
    distributed = require("distributed", "cluster")
    untargeted = [Job(job.source, key=job.key) for job in jobs]
    bundle = [Lot((untargeted[number % len(untargeted)],), LONG_S) for number in range(BUNDLE)]
    with local_cluster(distributed, 1) as local, distributed.Client(local, set_as_default=False) as client:
        what = "nothing", Nothing(), None
        list(Sender(distributed, client, what, ignore).run(iter([bundle])))  # the worker loads libraries
        began = time.process_time()
        list(Sender(distributed, client, what, ignore).run(iter([bundle] * bundles)))
        return (time.process_time() - began) / bundles


def journal_s(place: Path, rows: Sequence[Row], lines: int) -> float:
    folder = place / "journal"
    folder.mkdir()
    with Journal(folder) as journal:
        began = time.process_time()
        for number in range(lines):
            journal.note(rows[number % len(rows)])
        return (time.process_time() - began) / lines


def kept_s(jobs: Sequence[Job], out: Path, rounds: int) -> float:
    """For each file of a batch that is done already; raises RuntimeError where one is not."""
    with Journal(out) as journal:
        if len(sort_out(jobs, journal).kept) != len(jobs):
            raise RuntimeError("files that were done are to be done again")
        return least(lambda: sort_out(jobs, journal), rounds) / len(jobs)


def planned_bytes(kind: Kind, folder: Path, out: Path) -> int:
    tracemalloc.start()
    try:
        jobs = [(job, length_of(job)) for job in kind.jobs(folder, out)]
        held, _ = tracemalloc.get_traced_memory()
        del jobs
        return held - tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def least(run: Callable[[], object], rounds: int) -> float:
    return min(core_s(run) for _ in range(rounds))


def core_s(run: Callable[[], object]) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began
