"""Many files through one `Editor`: one bad file never stops the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from apps.editor import Editor, Outcome
from apps.files import Job, make_folder, told
from apps.progress import bars


@dataclass(frozen=True)
class Result:
    """A job and what became of it: an outcome, or the error in one line."""

    job: Job
    outcome: Outcome | None = None
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        if self.outcome is None:
            return {"source": str(self.job.source), "target": str(self.job.target), "error": self.error}
        return self.outcome.to_dict()


def edit_all(editor: Editor, jobs: Sequence[Job], *, force: bool = False, stop: bool = False) -> list[Result]:
    """Edit file after file, with bars for all and the present one; errors are collected, unless `stop` raises them."""
    results = []
    with bars() as progress:
        everything = progress.add_task("all files", total=len(jobs), visible=len(jobs) > 1)
        present = progress.add_task("", total=1.0)
        for job in jobs:

            def report(stage: str, share: float, name: str = job.source.name) -> None:
                progress.update(present, description=f"{name}: {stage}", completed=share)

            try:
                results.append(Result(job, edit_one(editor, job, report, force)))
            except Exception as error:
                if stop:
                    raise
                results.append(Result(job, error=told(error)))
            progress.advance(everything)
    return results


def edit_one(editor: Editor, job: Job, report: Any, force: bool) -> Outcome:
    make_folder(job.target.parent)
    outcome = editor.edit_file(job.source, job.target, force=force, report=report)
    if job.picture is not None:
        from apps.plot import plot_file

        report("drawing", 1.0)
        make_folder(job.picture.parent)
        plot_file(job.source, job.target, job.picture, editor.recipe.during, force=force)
    return outcome
