"""Transcribing as a task of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from apps.batch.digest import fingerprint
from apps.batch.jobs import Job
from apps.batch.worker import Done, Worker
from apps.files import write_result
from apps.formats import Format
from apps.opened import Opened
from apps.subtitles import written
from apps.transcripts import edits_of, recogniser, said
from hooks import Clip, open_model
from hooks.model import Transcriber
from hooks.samples import mixed_to_mono
from hooks.transcript import Transcript
from steer.recipe import Recipe

TOGETHER, TOGETHER_S = 8, 240.0
"""So many files go through the model at once, of so many seconds together."""


@dataclass(frozen=True)
class TranscribeTask:
    """Write down what is said in files, edited by a recipe (each by its own, if it has one) or by `model` as it is."""

    recipe: Recipe | None
    model: str
    language: str | None = None
    device: str = "cpu"
    format: Format = Format.txt
    words: bool = False
    decoding: Mapping[str, Any] = field(default_factory=dict)
    """The arguments of `Transcriber.decoding`."""

    def open(self) -> TranscribeWorker:
        worker = TranscribeWorker(self)
        worker.opened(None)
        return worker

    def fingerprint(self, recipe: Recipe | None) -> str:
        how: dict[str, Any] = {} if self.format == Format.txt else {"format": self.format, "words": self.words}
        return fingerprint(recipe or self.recipe, self.model, language=self.language, **how, **self.decoding)


@dataclass
class TranscribeWorker(Worker):
    task: TranscribeTask
    _opened: Opened = field(init=False)
    _plain: Transcriber | None = None

    def __post_init__(self) -> None:
        self._opened = Opened(self.task.device)

    def opened(self, recipe: Recipe | None) -> tuple[Transcriber, Any, dict[str, str]]:
        """The recogniser, the context in which it is edited, and its options.

        Raises:
            ModelError: it cannot be opened, writes no words, does not know the language, or does not decode like that.
            RecipeError: goals, which are for sounds.
            EditError, SAEError, SiteError: the recipe does not fit the model.
        """
        recipe = recipe or self.task.recipe
        edited: Any = nullcontext()
        if recipe is None:
            self._plain = self._plain or recogniser(open_model(self.task.model, device=self.task.device))
            model = self._plain
        else:
            edits = edits_of(recipe)
            steered = self._opened(recipe)
            model, edited = recogniser(steered.model), steered.edit(edits, padding=recipe.padding)
        options = model.language_option(self.task.language) | model.decoding(**self.task.decoding)
        if self.task.format != Format.txt or self.task.words:
            options |= model.timed(self.task.words)
        return model, edited, options

    def work(self, jobs: Sequence[Job], values: Sequence[Clip]) -> list[tuple[Clip, Transcript]]:
        done: dict[int, Transcript] = {}
        for recipe in {id(job.recipe): job.recipe for job in jobs}.values():
            rows = [number for number, job in enumerate(jobs) if job.recipe is recipe]
            model, edited, options = self.opened(recipe)
            with edited:
                # seeded: where a model draws lots, a file's text does not depend on the files beside it
                found = model.transcribe_all([values[row] for row in rows], seed=0, **options)
            done |= zip(rows, found, strict=True)
        return [(clip, done[row]) for row, clip in enumerate(values)]

    def keep(self, job: Job, value: tuple[Clip, Transcript]) -> Done:
        clip, transcript = value
        result = said(transcript) | told_of(clip)
        if job.target is not None:
            text = written(self.task.format, result)
            write_result(job.target, lambda path: path.write_text(text, encoding="utf-8"), force=True)
        return Done(clip.seconds, result)


def told_of(clip: Clip) -> dict[str, Any]:
    """What there is to say of a sound as a model gets it, mixed to mono: nothing of most."""
    note = mixed_to_mono(clip.waveform)[1]
    notes = [*clip.notes, *([note] if note else [])]
    return {"notes": notes} if notes else {}
