"""`do_batch`: a task on many files, from the journal and back to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from apps.batch.engine import Cluster, Engine, Here
from apps.batch.jobs import BatchError, Job, Row
from apps.batch.journal import Journal, read_rows
from apps.batch.signals import stopped_by_sigterm
from apps.batch.todo import Todo, lots, sort_out
from apps.batch.watch import Watch, Work
from apps.batch.worker import Task
from apps.files import make_folder
from apps.messages import log
from hooks import AudioSteerError
from hooks.clip import audio_info
from hooks.ffmpeg import ENDINGS, duration
from hooks.files import clear_partials


@dataclass(frozen=True)
class How:
    """How a batch is done: in this process, in `workers` processes, or by the Dask scheduler at `cluster`.

    With `force` all is done again, and what is there is overwritten; with `retry_failed` what failed is. `alone` is a
    single file: what is wrong with it is raised. `journal` is the folder of the journal, by default the output's.
    """

    workers: int = 0
    cluster: str = ""
    force: bool = False
    retry_failed: bool = False
    alone: bool = False
    journal: Path | None = None

    def engine(self, task: Task) -> Engine:
        """Raises AudioSteerError where the task cannot be done in this process, and BatchError for both at once."""
        if self.workers and self.cluster:
            raise BatchError("--workers starts processes here, --cluster uses those of a scheduler: choose one")
        if self.workers or self.cluster:
            return Cluster(self.workers, self.cluster)
        return Here(task.open())


@dataclass(frozen=True)
class Finished:
    """The rows of a batch in the order of its jobs, old and new, and what this call did of them.

    A `warning` says that the journal is not whole.
    """

    rows: list[Row]
    this_call: Work
    warning: str = ""


def do_batch(
    task: Task,
    jobs: Sequence[Job],
    out: Path | None,
    how: How,
    *,
    files: int = 1,
    seconds: float = 60.0,
    held: Mapping[str, str] | None = None,
) -> Finished:
    """Do what is left to do of the jobs. What is done is in the journal; there is none where nothing goes to `out`.

    Up to `files` files of like length, `seconds` long together, go through the model at once. `held` is for jobs
    without a target, see `sort_out`.

    Raises:
        BatchError: another process holds the journal, or the workers are lost: what is done stays, and the same call
            goes on.
        AudioSteerError: the task cannot be done on any file.
    """
    engine = how.engine(task)
    with ExitStack() as stack:
        journal, todo = None, Todo(list(jobs))
        folder = how.journal or out
        if folder is not None:
            for made in filter(None, (folder, out)):
                make_folder(made)
            journal = stack.enter_context(Journal(folder))
            todo = sort_out(jobs, journal, force=how.force, retry_failed=how.retry_failed, held=held)
            paths = [path for job in jobs for path in (job.target, job.picture) if path is not None]
            if held is not None and out is not None and how.journal is None:
                paths.append(out)  # which no other command fills: it would want this journal
            clear_partials(paths)
            stack.callback(clear_partials, paths)  # of workers that died
            journal.rows.clear()
        log.info(f"steer: {len(jobs)} files, {len(todo.kept)} of them done before, {len(todo.jobs)} to do")
        watch = stack.enter_context(Watch(len(jobs), len(todo.kept)))
        lengths = [(job, length_of(job)) for job in todo.jobs]
        watch.begin(sum(length for _, length in lengths))
        stack.enter_context(stopped_by_sigterm())
        new: dict[str, Row] = {}
        began = journal.begin if journal else ignore
        rows = stack.enter_context(closing(engine.run(task, lots(lengths, files=files, seconds=seconds), began)))
        for row in rows:
            watch.note(row)
            if how.alone and row.error:
                raise BatchError(row.complaint())
            if journal:
                journal.note(row)
            else:
                new[row.key] = row
        for row in todo.refused:
            watch.note(row)
            if how.alone:
                raise BatchError(row.complaint())
    untold, warning = journal.unwritten() if journal else [], ""
    if journal and untold:
        warning = (
            f"{journal.path}: could not be written (is the disk full?): {len(untold)} files are not in it; the same "
            "command does again those that are missing, with --force all"
        )
    found = new | {row.key: row for row in (*(read_rows(folder) if folder else ()), *untold, *todo.refused)}
    return Finished([found[job.key] for job in jobs if job.key in found], watch.work, warning)


def length_of(job: Job) -> float:
    """In seconds; 0 of a file that cannot be read, which is told when it is its turn."""
    try:
        if job.source.suffix.lower() in ENDINGS:  # which would be decoded for it
            return duration(job.source)
        return audio_info(job.source).seconds
    except AudioSteerError:
        return 0.0


def ignore(jobs: Sequence[Job]) -> None:
    """What is not written down is not begun either."""
