"""What the batch is measured on: each command's task as that does it, and the loop that one would write without it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save_file

from apps.batch.edit_work import EditTask
from apps.batch.features_work import TOGETHER as LISTENED
from apps.batch.features_work import TOGETHER_S as LISTENED_S
from apps.batch.features_work import FeaturesTask
from apps.batch.jobs import Job, Row, plan
from apps.batch.run import How, do_batch
from apps.batch.transcribe_work import TOGETHER, TOGETHER_S, TranscribeTask
from apps.batch.worker import Task
from apps.feature_lists import features_of
from apps.flags import RECOGNISER
from apps.inputs import inputs_of
from apps.transcripts import recogniser
from hooks import open_model
from steer.editing.editor import Editor
from steer.recipe import Recipe

SCALED = {"edits": [{"scale": {"459": 2.0, "500": 0.5}}]}
LOUDER = {"goals": {"loudness": "+3dB"}}
ENCODER = {"model": "starter:ssl", "saes": {"encoder.1": "starter:ssl/encoder.1"}}

Loop = Callable[[Sequence[Path], Path], None]
"""Does these sounds into a folder: opens the model, then reads, runs and writes, file after file."""


@dataclass(frozen=True)
class Kind:
    """A task whose outputs end in `ending`, with up to `together` files of `together_s` seconds at once; and the
    lengths (s) and rate (Hz) of the sounds that it is measured on."""

    task: Task
    fingerprint: str
    ending: str
    loop: Loop
    shortest_s: float
    longest_s: float
    sample_rate: int
    together: int = 1
    together_s: float = 60.0

    def jobs(self, folder: Path, out: Path) -> list[Job]:
        found, _ = inputs_of([str(folder)])
        own = None, self.fingerprint
        return plan(
            found, out, lambda name: name.with_name(name.name + self.ending), lambda name: None, lambda one: own
        )

    def batch(self, folder: Path, out: Path, how: How) -> list[Row]:
        """Do all of a folder. Raises RuntimeError where a file fails: what that takes is no measure of work."""
        finished = do_batch(self.task, self.jobs(folder, out), out, how, files=self.together, seconds=self.together_s)
        for row in finished.rows:
            if row.error:
                raise RuntimeError(row.complaint())
        return finished.rows


def kinds() -> dict[str, Kind]:
    scaled, louder, encoder = (Recipe.build(values) for values in (SCALED, LOUDER, ENCODER))
    edit, goal = EditTask(scaled), EditTask(louder)
    listen, write = FeaturesTask(encoder, top=10), TranscribeTask(None, RECOGNISER)
    return {
        "edit": Kind(edit, edit.fingerprint(None), "", loop_of_edits(scaled), 0.3, 5.0, 24_000),
        "goal": Kind(goal, goal.fingerprint(None), "", loop_of_edits(louder), 0.3, 5.0, 24_000),
        "transcribe": Kind(
            write, write.fingerprint(None), ".txt", loop_of_transcripts, 1.0, 6.0, 16_000, TOGETHER, TOGETHER_S
        ),
        "features": Kind(
            listen,
            listen.fingerprint(),
            ".safetensors",
            loop_of_features(encoder),
            0.3,
            3.0,
            16_000,
            LISTENED,
            LISTENED_S,
        ),
    }


def loop_of_edits(recipe: Recipe) -> Loop:
    def loop(sources: Sequence[Path], out: Path) -> None:
        editor = Editor(recipe, pitch=False)
        for source in sources:
            editor.edit_file(source, out / source.name)

    return loop


def loop_of_features(recipe: Recipe) -> Loop:
    def loop(sources: Sequence[Path], out: Path) -> None:
        steered = recipe.open()
        for source in sources:
            save_file(features_of(steered, source), out / f"{source.name}.safetensors")

    return loop


def loop_of_transcripts(sources: Sequence[Path], out: Path) -> None:
    model = recogniser(open_model(RECOGNISER))
    for source in sources:
        (out / f"{source.name}.txt").write_text(f"{model.transcribe(source)}\n", encoding="utf-8")
