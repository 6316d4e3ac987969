"""The smallest task: the text of a file in capitals. No model, no sound, and plain enough for other processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from apps.batch.jobs import BatchError, Job
from apps.batch.worker import Done, Worker
from apps.files import make_folder, write_result


@dataclass(frozen=True)
class Upper:
    """A file that holds `bad STEP` fails in that step; `die` takes its process down, `die once PATH` as long as PATH is
    not there."""

    error: str = ""

    def open(self) -> UpperWorker:
        if self.error:
            raise BatchError(self.error)
        return UpperWorker()


class UpperWorker(Worker):
    def read(self, job: Job) -> str:
        if job.target is not None:
            make_folder(job.target.parent)
        text = job.source.read_text()
        fail("read", text)
        return text

    def work(self, jobs: Sequence[Job], values: Sequence[str]) -> list[str]:
        for text in values:
            if text.startswith("die once ") and not Path(text[9:]).exists():
                Path(text[9:]).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            if text == "die":
                os._exit(1)
            fail("work", text)
        return [text.upper() for text in values]

    def keep(self, job: Job, value: str) -> Done:
        fail("keep", value.lower())
        if job.target is not None:
            write_result(job.target, lambda path: path.write_text(value), force=True)
        return Done(len(value), {"text": value})


def fail(step: str, text: str) -> None:
    if text == f"bad {step}":
        raise ValueError(f"{step} does not like {text!r}")


def jobs_in(folder: Path, texts: dict[str, str]) -> list[Job]:
    """Writes the texts below `folder`/in; jobs for `folder`/out."""
    jobs = []
    for name, text in texts.items():
        source = folder / "in" / name
        source.parent.mkdir(parents=True, exist_ok=True)
        source.write_text(text)
        jobs.append(Job(source, folder / "out" / name, name, fingerprint="capitals"))
    return jobs
