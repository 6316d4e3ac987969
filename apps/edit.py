"""`steer edit`: change sound files by what they shall sound like, or feature by feature."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:  # these load torch: `steer --help` shall not wait for it
    from apps.batch import Result
    from steer.recipe import Recipe

FAILED, UNMET = 1, 3

Sounds = Annotated[list[str], typer.Argument(help="Sound files, folders or quoted globs.", show_default=False)]


def edit(
    inputs: Sounds,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write; a folder for several inputs.", show_default=False)],
    loudness: Annotated[str | None, typer.Option(help="Goal, such as +6dB.", rich_help_panel="What it shall sound like")] = None,
    pitch: Annotated[str | None, typer.Option(help="Goal, such as -2st (semitones).", rich_help_panel="What it shall sound like")] = None,
    brightness: Annotated[
        str | None, typer.Option(help="Goal, such as +20% (of the spectral centroid).", rich_help_panel="What it shall sound like")
    ] = None,
    ablate: Annotated[list[str] | None, typer.Option(help="Features set to zero: 3,17.", rich_help_panel="Feature by feature")] = None,
    clamp: Annotated[list[str] | None, typer.Option(help="Features held at a value: 5=2.0.", rich_help_panel="Feature by feature")] = None,
    scale: Annotated[list[str] | None, typer.Option(help="Features times a factor: 4=1.5.", rich_help_panel="Feature by feature")] = None,
    shift: Annotated[
        list[str] | None,
        typer.Option(help="Along a control vector: vectors.safetensors#name:8.", rich_help_panel="Feature by feature"),
    ] = None,
    during: Annotated[list[str] | None, typer.Option(help="Only between these seconds: 0.5-1.5. Repeatable.")] = None,
    residual: Annotated[
        str | None, typer.Option(help="keep or drop what the codec cannot carry (input minus round trip). Default: keep.")
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="YAML or JSON to start from; other options add to it or replace.")] = None,
    save_recipe: Annotated[Path | None, typer.Option(help="Write down what these options mean.")] = None,
    model: Annotated[str | None, typer.Option(help="Codec: a name or a folder; see `steer models`.")] = None,
    sae: Annotated[str | None, typer.Option(help="SAE: a name or a folder.")] = None,
    site: Annotated[str | None, typer.Option(help="Where the SAE goes, if it does not say itself.")] = None,
    plot: Annotated[Path | None, typer.Option(help="PNG of before and after; a folder for several inputs.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Results as JSON on stdout.")] = False,
    force: Annotated[bool, typer.Option("--force", "-f", help="Overwrite what exists.")] = False,
) -> None:
    """Edit sound files through the features of a codec.

    Exit codes: 0 done, 1 some files of a batch failed, 2 wrong input, 3 a goal was not reached (the files are written).
    """
    from rich.console import Console

    from apps.batch import batch_table, edit_all, make_folder, outcome_table, progress_bar, shortfalls, verdict
    from apps.editor import Editor
    from apps.files import Job, plan_jobs, to_json
    from hooks.clip import audio_info, check_target

    jobs, is_batch = plan_jobs(inputs, output)
    goals = {"loudness": loudness, "pitch": pitch, "brightness": brightness}
    edits = edits_of(ablate or [], clamp or [], scale or [], shift or [])
    what = recipe_of(recipe, goals, edits, during or [], residual, model, sae, site)
    draw = None
    if plot is not None:
        from apps.plot import check_plot, plot_file

        check_plot()
        pictures = {job.target: plot_of(job, plot, output) if is_batch else plot for job in jobs}

        def draw(job: Job) -> None:
            if is_batch:
                make_folder(pictures[job.target].parent)
            plot_file(job.source, job.target, pictures[job.target], what.during, force=force)

    if save_recipe is not None:
        what.save(save_recipe, force)
    console, errors = Console(), Console(stderr=True)
    if is_batch:
        make_folder(output)
        editor = Editor(what)
        results = edit_all(editor, jobs, errors, force=force, after=draw)
    else:
        (job,) = jobs
        # bad input is told before a model is opened
        audio_info(job.source)
        for target in [job.target] + ([pictures[job.target]] if draw else []):
            check_target(target, force)
        with progress_bar(errors) as progress:
            task = progress.add_task("opening the model", total=1.0)
            outcome = Editor(what).edit_file(
                job.source, job.target, force=force, report=lambda stage, share: progress.update(task, description=stage, completed=share)
            )
            if draw is not None:
                draw(job)
        results = [result_of(job, outcome)]
    if as_json:
        print(to_json({"recipe": what.to_dict(), "files": [result.to_dict() for result in results]}))
    elif is_batch:
        console.print(batch_table(results))
    else:
        console.print(outcome_table(outcome))
        console.print(f"{verdict(outcome)}: {job.target}")
    for result in results:
        for line in shortfalls(result.outcome) if result.outcome else ():
            print(line, file=sys.stderr)
    raise typer.Exit(exit_code(results))


def result_of(job: Any, outcome: Any) -> Result:
    from apps.batch import Result

    return Result(job, outcome)


def exit_code(results: list[Result]) -> int:
    if any(result.error for result in results):
        return FAILED
    return 0 if all(result.outcome and result.outcome.met for result in results) else UNMET
