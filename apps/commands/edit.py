"""`steer edit`: change sound files by what they shall sound like, or feature by feature."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apps.config import typed
from apps.exit_codes import FAILED, UNMET
from apps.messages import log
from apps.options import Device, Force, Json, Many, Means, Sounds, of_many, of_means, output, panel

if TYPE_CHECKING:  # loads torch: `steer --help` shall not wait for it
    from apps.batch.edit_work import EditTask
    from apps.batch.jobs import Job
    from steer.editing.outcome import Outcome
    from steer.recipe import Recipe

of_goals, of_voice, of_features = map(panel, ("What it shall sound like", "Voice and pitch", "Feature by feature"))


@dataclass(frozen=True)
class Goals:
    """A recipe's `goals`."""

    loudness: Annotated[str | None, of_goals(help="Such as +6dB.")] = None
    pitch: Annotated[str | None, of_goals(help="Such as -2st (semitones).")] = None
    brightness: Annotated[str | None, of_goals(help="Such as +20% (of the centroid).")] = None
    goal: Annotated[list[str] | None, of_goals(help="One that an installed package adds: NAME=AMOUNT. Repeatable.")] = (
        None
    )


@dataclass(frozen=True)
class Voice:
    """A recipe's `voice`."""

    pitch_curve: Annotated[str | None, of_voice(help="Semitones at seconds: 0:0,1.5:+3,3:0.")] = None
    pitch_range: Annotated[str | None, of_voice(help="How far pitch moves: 1.5x livelier, 0 monotone.")] = None
    vibrato: Annotated[str | None, of_voice(help="off takes it away.")] = None
    key: Annotated[str | None, of_voice(help="Notes go to those of it: 'C major', 'a minor', chromatic.")] = None
    note: Annotated[str | None, of_voice(help="Where the median pitch goes: A3, or 57 (MIDI).")] = None
    whisper: Annotated[str | None, of_voice(help="The share of voicing taken away: 1 is a whisper.")] = None
    formants: Annotated[
        str | None, of_voice(help="Move the formants, such as +2st (a smaller head); they stay if left out.")
    ] = None


@dataclass(frozen=True)
class Edits:
    """A recipe's `edits`."""

    ablate: Annotated[list[str] | None, of_features(help="Set to zero: 3,17.")] = None
    clamp: Annotated[list[str] | None, of_features(help="Hold at a value: 5=2.0.")] = None
    scale: Annotated[list[str] | None, of_features(help="Multiply: 4=1.5.")] = None
    shift: Annotated[list[str] | None, of_features(help="Along a vector: file.safetensors#name:8.")] = None
    add_direction: Annotated[
        list[str] | None,
        of_features(
            help="Add directions to the activation itself, at the sites that they were fitted at: file.safetensors:2, "
            "or one of them: file.safetensors#name:2."
        ),
    ] = None
    keep_norm: Annotated[bool, of_features("--keep-norm", help="Then give each frame the length back that it had.")] = (
        False
    )


@dataclass(frozen=True)
class Manner:
    """What else a recipe says."""

    during: Annotated[list[str] | None, typer.Option(help="Only between these seconds: 0.5-1.5. Repeatable.")] = None
    residual: Annotated[
        str | None,
        typer.Option(
            autocompletion=lambda: ["ratio", "keep", "drop"],
            help="How the change reaches the sound. ratio: as a gain on it, or with a moved pitch as the codec's "
            "output with its envelope. keep: the codec's change is added to it. drop: the codec's output alone. "
            "\\[default: ratio for goals; for feature edits keep, or ratio with a codec that does not keep the phase]",
        ),
    ] = None
    limit: Annotated[
        bool | None,
        typer.Option(
            "--limit/--no-limit",
            help="Turn true peaks above full scale down, in files of integer and lossy formats; without it samples "
            "beyond full scale are clipped and counted. \\[default: limit]",
        ),
    ] = None


def edit(
    context: typer.Context,
    *,
    inputs: Sounds,
    out: Annotated[Path, output("File to write; for several inputs a folder.")],
    goals: Goals,
    voice: Voice,
    edits: Edits,
    manner: Manner,
    recipe: Annotated[Path | None, of_means(help="YAML, JSON, a pack or a name; options add to it.")] = None,
    means: Means,
    device: Device = "cpu",
    save_recipe: Annotated[Path | None, typer.Option(help="Write these options as a recipe.")] = None,
    plot: Annotated[Path | None, typer.Option(help="PNG of before and after; for several inputs a folder.")] = None,
    details: Annotated[
        bool,
        of_many(
            "--details",
            "--pitch-drift",
            help="Measure what else changed too, as for one file: pitch where it is no goal, the codec's round trip, "
            "STOI, channels. Takes longest.",
        ),
    ] = False,
    many: Many,
    as_json: Json = False,
    force: Force = False,
) -> None:
    """Edit sound files through the features of a codec.

    Several files go to a folder, with a journal of what is done: the same command does what is missing or changed.

    Exit codes: 0 done, 1 some files of a batch failed, 2 wrong input, 3 a goal was not reached (the files are written).
    """
    from apps.batch.edit_work import EditTask
    from apps.batch.jobs import plan
    from apps.batch.recipes import own_recipes
    from apps.inputs import inputs_of, written_as
    from hooks.clip import check_target
    from steer.recipe import Recipe

    found, is_batch = inputs_of(inputs)
    options: dict[str, Any] = {"goals": goals, "voice": voice, "edits": edits, "manner": manner, "means": means}

    def with_options(base: Recipe | None) -> Recipe:
        """What is asked for on top of a recipe, which wins over the configuration file."""
        if base is None:
            return asked(None, **options)
        return asked(base, **{name: typed(context, group) for name, group in options.items()})

    what = with_options(Recipe.load(recipe) if recipe else None)
    if plot is not None:
        from apps.plot import require_plots

        require_plots()
    if save_recipe is not None:
        check_target(save_recipe, force)
    task = EditTask(what, details, device)
    if is_batch:

        def picture_of(name: Path) -> Path | None:
            return plot / name.with_name(f"{name.name}.png") if plot else None

        jobs = plan(found, out, written_as, picture_of, own_recipes(task.fingerprint, with_options))
        code = edit_many(task, jobs, out, many, force, as_json)
    else:
        target = out / written_as(found[0].name) if out.is_dir() else out
        code = edit_one(task, found[0].source, target, plot, force, as_json)
    if save_recipe is not None:
        what.save(save_recipe, force)
    raise typer.Exit(code)


def asked(base: Recipe | None, goals: Goals, voice: Voice, edits: Edits, manner: Manner, means: Means) -> Recipe:
    """The recipe of these options. Raises RecipeError or SAEError for options that make no sense."""
    from apps.flags import edits_of, goals_of, recipe_of

    wanted = {**asdict(goals), **goals_of(goals.goal or [])}
    del wanted["goal"]
    return recipe_of(
        base,
        wanted,
        edits_of(**asdict(edits)),
        manner.during or [],
        manner.residual,
        limit=manner.limit,
        voice=asdict(voice),
        **asdict(means),
    )


def edit_one(task: EditTask, source: Path, target: Path, plot: Path | None, force: bool, as_json: bool) -> int:
    """Edit a file, with a bar, and print what was measured; gives the exit code."""
    from rich.console import Console

    from apps.files import make_folder, to_json
    from apps.progress import bars
    from apps.tables import show_outcome
    from hooks.clip import audio_info, check_target
    from steer.editing.editor import Editor

    info = audio_info(source)  # what is wrong with it is said before a model is opened
    for path in filter(None, (target, plot)):
        if path == plot:
            make_folder(path.parent)
        check_target(path, force)
    editor = Editor(task.recipe, steered=task.recipe.open(task.device))
    with bars() as progress:
        bar = progress.add_task("", total=1.0)

        def report(stage: str, share: float) -> None:
            progress.update(bar, description=f"{source.name}: {stage}", completed=share)

        outcome = editor.edit_file(source, target, force=force, report=report)
        if plot is not None:
            from apps.plot import plot_file

            report("drawing", 1.0)
            plot_file(source, target, plot, task.recipe.during, force=force)
    del info  # until now, so that what ffmpeg decodes is decoded once
    if as_json:
        print(to_json({"recipe": task.recipe.to_dict(), "files": [outcome.to_dict()]}))
    else:
        show_outcome(outcome, Console())
    return exit_code([outcome], failed=False)


def edit_many(task: EditTask, jobs: list[Job], out: Path, many: Many, force: bool, as_json: bool) -> int:
    """Edit files into a folder and print what came of it; gives the exit code."""
    from rich.console import Console

    from apps.batch.report import BatchReport
    from apps.batch.run import do_batch
    from apps.files import to_json
    from apps.tables import FILES, batch_table
    from steer.editing.outcome import Outcome

    many.check()
    report = BatchReport.of("edited", do_batch(task, jobs, out, many.how(force)))
    if as_json:
        files = [row.failure() if row.error else row.result for row in report.rows]
        print(to_json({"recipe": task.recipe.to_dict(), "files": files, "report": report.to_dict()}))
    else:
        if len(report.rows) <= FILES:
            Console().print(batch_table(report.rows))
        report.show(Console())
    many.end(report)
    outcomes = [Outcome(**row.result) for row in report.rows if row.result]
    return exit_code(outcomes, failed=report.failed)


def exit_code(outcomes: list[Outcome], failed: bool) -> int:
    """And a line on stderr for each goal that was not reached."""
    from apps.outcomes import shortfalls

    for outcome in outcomes:
        for line in shortfalls(outcome):
            log.error(line)
    if failed:
        return FAILED
    return 0 if all(outcome.met for outcome in outcomes) else UNMET
