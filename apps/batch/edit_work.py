"""Editing as a task of a batch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from apps.batch.digest import fingerprint
from apps.batch.jobs import Job, plan
from apps.batch.worker import Done
from apps.editor import Edited, Editor, Excerpts
from apps.files import make_folder, told
from apps.inputs import Input
from steer.recipe import Recipe
from steer.steered import SteeredModel

EDITORS = 16
"""So many recipes are kept ready; those of one model and its SAEs share them."""


@dataclass(frozen=True)
class EditTask:
    """Edit files by a recipe, or each by its own. Pitch takes longest to measure: it is, with `pitch` or for a goal."""

    recipe: Recipe
    pitch: bool = False

    def open(self) -> EditWorker:
        worker = EditWorker(self)
        worker.editor(None)
        return worker

    def fingerprint(self, recipe: Recipe | None) -> str:
        return fingerprint(recipe or self.recipe, pitch=self.pitch)


def edit_jobs(
    task: EditTask,
    inputs: Sequence[Input],
    out: Path,
    plot: Path | None,
    with_options: Callable[[Recipe | None], Recipe],
) -> list[Job]:
    """A job for each input: its own recipe, if it has one, with the options on top of it.

    Raises:
        AudioFileError: two files for one place.
        RecipeError: an input's own recipe makes no sense.
    """
    recipes: dict[tuple[Path, str], tuple[Recipe | None, str]] = {}

    def recipe_of(one: Input) -> tuple[Recipe | None, str]:
        key = one.folder, str(one.recipe)
        if key not in recipes:
            recipe = None
            if isinstance(one.recipe, Path):
                recipe = with_options(Recipe.load(one.recipe))
            elif one.recipe is not None:
                recipe = with_options(Recipe.build(one.recipe, f"recipe of {one.source}", one.folder))
            recipes[key] = recipe, task.fingerprint(recipe)
        return recipes[key]

    def target_of(name: Path) -> Path:
        return name

    def picture_of(name: Path) -> Path | None:
        return plot / name.with_name(f"{name.name}.png") if plot else None

    return plan(inputs, out, target_of, picture_of, recipe_of)


@dataclass
class EditWorker:
    task: EditTask
    _editors: OrderedDict[str, Editor] = field(default_factory=OrderedDict)
    _models: OrderedDict[str, SteeredModel] = field(default_factory=OrderedDict)

    def editor(self, recipe: Recipe | None) -> Editor:
        """The editor of a recipe; models that are open already are not opened again."""
        recipe = recipe or self.task.recipe
        key = str(recipe.to_dict())
        if key not in self._editors:
            means = str(
                (recipe.located(recipe.model), {site: recipe.located(sae) for site, sae in recipe.saes.items()})
            )
            editor = Editor(recipe, steered=self._models.get(means), pitch=self.task.pitch)
            self._models[means] = editor.steered
            self._editors[key] = editor
            for kept, most in ((self._editors, EDITORS), (self._models, 2)):
                while len(kept) > most:
                    kept.popitem(last=False)
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
