"""Editing as a task of a batch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from apps.batch.digest import fingerprint
from apps.batch.jobs import Job
from apps.batch.worker import Done, Worker
from apps.files import make_folder, told
from apps.opened import Opened
from steer.editing.editor import Edited, Editor, Excerpts
from steer.recipe import Recipe

EDITORS = 16
"""So many recipes are kept ready."""


@dataclass(frozen=True)
class EditTask:
    """Edit files by a recipe, or each by its own. What else changed takes longest to measure: it is, with `pitch`."""

    recipe: Recipe
    pitch: bool = False
    device: str = "cpu"

    def open(self) -> EditWorker:
        worker = EditWorker(self)
        worker.editor(None)
        return worker

    def fingerprint(self, recipe: Recipe | None) -> str:
        return fingerprint(recipe or self.recipe, pitch=self.pitch)


@dataclass
class EditWorker(Worker):
    task: EditTask
    _editors: OrderedDict[str, Editor] = field(default_factory=OrderedDict)
    _opened: Opened = field(init=False)
    _lock: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        self._opened = Opened(self.task.device)

    def editor(self, recipe: Recipe | None) -> Editor:
        recipe = recipe or self.task.recipe
        key = str(recipe.to_dict(Path()))  # recipes of other folders may say the same of other files
        with self._lock:
            if key not in self._editors:
                self._editors[key] = Editor(recipe, steered=self._opened(recipe), pitch=self.task.pitch)
                while len(self._editors) > EDITORS:
                    self._editors.popitem(last=False)
            self._editors.move_to_end(key)
            return self._editors[key]

    def read(self, job: Job) -> Excerpts:
        assert job.target is not None
        make_folder(job.target.parent)
        return self.editor(job.recipe).read(job.source, job.target)

    def work(self, jobs: Sequence[Job], values: Sequence[Excerpts]) -> list[Edited]:
        return [self.editor(job.recipe).edit(excerpts, force=True) for job, excerpts in zip(jobs, values, strict=True)]

    def keep(self, job: Job, value: Edited) -> Done:
        editor = self.editor(job.recipe)
        outcome, error = editor.write(value, force=True), ""
        if job.picture is not None and job.target is not None:
            from apps.plot import plot_file

            try:
                make_folder(job.picture.parent)
                plot_file(job.source, job.target, job.picture, editor.recipe.during, force=True)
            except Exception as failure:  # the sound is there all the same
                error = told(failure)
        return Done(outcome.seconds, outcome.to_dict(), error)
