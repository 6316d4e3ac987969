"""`steer edit`: change sound files by what they shall sound like, or feature by feature."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apps.options import MEANS, Force, Json, Model, Sae, SaeSite, Sounds, output

if TYPE_CHECKING:  # loads torch: `steer --help` shall not wait for it
    from apps.batch import Result

FAILED, UNMET = 1, 3
GOALS, FEATURES = "What it shall sound like", "Feature by feature"


def edit(
    inputs: Sounds,
    out: Annotated[Path, output("File to write; for several inputs a folder.")],
    loudness: Annotated[str | None, typer.Option(help="Such as +6dB.", rich_help_panel=GOALS)] = None,
    pitch: Annotated[str | None, typer.Option(help="Such as -2st (semitones).", rich_help_panel=GOALS)] = None,
    brightness: Annotated[
        str | None, typer.Option(help="Such as +20% (of the centroid).", rich_help_panel=GOALS)
    ] = None,
    ablate: Annotated[list[str] | None, typer.Option(help="Set to zero: 3,17.", rich_help_panel=FEATURES)] = None,
    clamp: Annotated[list[str] | None, typer.Option(help="Hold at a value: 5=2.0.", rich_help_panel=FEATURES)] = None,
    scale: Annotated[list[str] | None, typer.Option(help="Multiply: 4=1.5.", rich_help_panel=FEATURES)] = None,
    shift: Annotated[
        list[str] | None, typer.Option(help="Along a vector: file.safetensors#name:8.", rich_help_panel=FEATURES)
    ] = None,
    during: Annotated[list[str] | None, typer.Option(help="Only between these seconds: 0.5-1.5. Repeatable.")] = None,
    residual: Annotated[
        str | None, typer.Option(help="keep or drop what the codec cannot carry [default: drop for goals]")
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="YAML or JSON; other options add to it.", rich_help_panel=MEANS)
    ] = None,
    model: Model = None,
    sae: Sae = None,
    site: SaeSite = None,
    save_recipe: Annotated[Path | None, typer.Option(help="Write these options as a recipe.")] = None,
    plot: Annotated[Path | None, typer.Option(help="PNG of before and after; for several inputs a folder.")] = None,
    as_json: Json = False,
    force: Force = False,
) -> None:
    """Edit sound files through the features of a codec.

    Exit codes: 0 done, 1 some files of a batch failed, 2 wrong input, 3 a goal was not reached (the files are written).
    """
    from rich.console import Console

    from apps.batch import edit_all
    from apps.editor import Editor
    from apps.files import make_folder, plan_jobs, to_json
    from apps.flags import edits_of, recipe_of
    from apps.tables import batch_table, outcome_table, shortfalls
    from hooks.clip import audio_info, check_target

    jobs, is_batch = plan_jobs(inputs, out, plot)
    goals = {"loudness": loudness, "pitch": pitch, "brightness": brightness}
    edits = edits_of(ablate or [], clamp or [], scale or [], shift or [])
    what = recipe_of(recipe, goals, edits, during or [], residual, model, sae, site)
    if plot is not None:
        from apps.plot import require_plots

        require_plots()
    if is_batch:
        make_folder(out)
    else:  # told before a model is opened
        audio_info(jobs[0].source)
        for path in filter(None, (jobs[0].target, jobs[0].picture)):
            check_target(path, force)
    editor = Editor(what)
    if save_recipe is not None:
        what.save(save_recipe, force)
    results = edit_all(editor, jobs, force=force, stop=not is_batch)
    if as_json:
        print(to_json({"recipe": what.to_dict(), "files": [result.to_dict() for result in results]}))
    else:
        Console().print(batch_table(results) if is_batch else outcome_table(results[0]))
    for result in results:
        for line in shortfalls(result):
            print(line, file=sys.stderr)
    raise typer.Exit(exit_code(results))


def exit_code(results: list[Result]) -> int:
    if any(result.error for result in results):
        return FAILED
    return 0 if all(result.outcome and result.outcome.met for result in results) else UNMET
