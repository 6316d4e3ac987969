"""`steer evaluate NAME`: how well edits or SAEs do, measured on labelled sounds."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from apps import evaluate_all, evaluate_reconstruction, evaluate_speech
from apps.options import Model, Sae, SaeSite

EVALUATORS = {"acoustics": "evaluation.acoustics_run"}
"""Name of an evaluator and its module, whose `evaluate(steered, vectors, audio, ...)` gives a Report."""
SUMMARIES = {"acoustics": "How often requested changes of loudness, brightness and pitch are met, and what drifts."}

app = typer.Typer(help="Measure how well edits do.", no_args_is_help=True)


def command(name: str) -> Callable[..., None]:
    def run(
        audio: Annotated[Path, typer.Option(help="Folder of subsets, each with a manifest.csv.", show_default=False)],
        out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.", show_default=False)],
        split: Annotated[str, typer.Option(help="Which clips: train, valid or test.")] = "test",
        clips: Annotated[int, typer.Option(min=1, help="At most this many clips of a subset.")] = 40,
        model: Model = None,
        sae: Sae = None,
        site: SaeSite = None,
    ) -> None:
        from apps.flags import recipe_of
        from apps.progress import track
        from apps.results import keep, results_in

        with results_in(out):
            recipe = recipe_of(None, {}, [], [], None, model, sae, site)
            evaluate = importlib.import_module(EVALUATORS[name]).evaluate
            report = evaluate(
                recipe.open(),
                recipe.control_vectors(),
                audio,
                split=split,
                clips_per_subset=clips,
                progress=lambda jobs: track(jobs, name),
            )
            keep(report, out, name)

    run.__doc__ = SUMMARIES[name]
    return run


for _name in EVALUATORS:
    app.command(_name)(command(_name))
app.command("reconstruction")(evaluate_reconstruction.reconstruction)
app.command("ablation")(evaluate_speech.ablation)
app.command("false-alarms")(evaluate_speech.false_alarms)
app.command("stability")(evaluate_speech.stability)
app.command("all")(evaluate_all.everything)
