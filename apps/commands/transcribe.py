"""`steer transcribe`: write down what is said, with the edits of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apps.config import is_from_file
from apps.formats import Format
from apps.options import Device, Force, Json, Many, Sounds, of_means, output, panel

if TYPE_CHECKING:  # loads torch: `steer --help` shall not wait for it
    from steer.recipe import Recipe

of_decoding = panel("How words are found")


def transcribe(
    context: typer.Context,
    *,
    inputs: Sounds,
    out: Annotated[Path | None, output("Folder for a text for each file.")] = None,
    format: Annotated[
        Format, typer.Option("--format", help="srt and vtt are subtitles; json has segments with their times.")
    ] = Format.txt,
    words: Annotated[bool, typer.Option("--words", help="Times of single words too, in json and vtt.")] = False,
    language: Annotated[str | None, typer.Option(help="Such as en; else the model finds it out.")] = None,
    temperature: Annotated[
        str | None,
        of_decoding(
            help="0 for the likeliest words; above 0 they are drawn, the same in each call. Several with commas: the "
            "next where a text is poor. Default: the model's library's.",
            show_default=False,
        ),
    ] = None,
    beam_size: Annotated[int | None, of_decoding(min=1, help="Number of beams at temperature 0.")] = None,
    no_timestamps: Annotated[bool, of_decoding("--no-timestamps", help="Plain text: no times are decoded.")] = False,
    model: Annotated[str | None, of_means(help="Name or folder; by default the recipe's, or starter:asr.")] = None,
    recipe: Annotated[Path | None, of_means(help="YAML, JSON, a pack or a name; SAEs and edits.")] = None,
    device: Device = "cpu",
    many: Many,
    as_json: Json = False,
    force: Force = False,
) -> None:
    """Transcribe sound files, edited by a recipe or as the model is.

    With -o there is a journal of what is done: the same command does what is missing or changed.

    Exit codes: 0 done, 1 some files of a batch failed, 2 wrong input.
    """
    from apps.batch.jobs import Row, plan
    from apps.batch.recipes import own_recipes
    from apps.batch.report import BatchReport
    from apps.batch.run import do_batch
    from apps.batch.transcribe_work import TOGETHER, TOGETHER_S, TranscribeTask
    from apps.files import to_json
    from apps.flags import RECOGNISER, anywhere, recogniser_recipe
    from apps.inputs import inputs_of
    from apps.subtitles import written
    from steer.errors import RecipeError
    from steer.recipe import Recipe

    found, is_batch = inputs_of(inputs)
    many.check()
    if words and not as_json and format not in (Format.json, Format.vtt):
        raise RecipeError(f"--words: {format} has no place for the times of words; use --format json or vtt")

    if no_timestamps and (words or format in (Format.srt, Format.vtt)):
        raise RecipeError("--no-timestamps: subtitles and the times of words need them")
    decoding: dict[str, Any] = {
        **({"temperature": temperatures(temperature)} if temperature is not None else {}),
        **({"beam_size": beam_size} if beam_size is not None else {}),
        **({"timestamps": False} if no_timestamps else {}),
    }

    def with_model(base: Recipe) -> Recipe:
        return recogniser_recipe(base, None if is_from_file(context, "model") else model, [])

    what = with_model(Recipe.load(recipe, RECOGNISER)) if recipe else None
    task = TranscribeTask(what, anywhere(model or RECOGNISER), language, device, format, words, decoding)
    jobs = plan(
        found,
        out,
        lambda name: name.with_name(f"{name.name}.{format}"),
        lambda name: None,
        own_recipes(task.fingerprint, with_model, RECOGNISER),
    )
    how = many.how(force, alone=not is_batch)
    report = BatchReport.of("transcribed", do_batch(task, jobs, out, how, files=TOGETHER, seconds=TOGETHER_S))

    def listed(row: Row) -> dict[str, Any]:
        return row.failure() if row.error else {"source": row.source, **row.result}

    if as_json:
        about = {"model": what.model if what else task.model, **({"recipe": what.to_dict()} if what else {})}
        files = [listed(row) for row in report.rows]
        print(to_json({**about, "files": files, **({"report": report.to_dict()} if is_batch else {})}))
    else:
        for row in report.rows:
            if row.error:
                continue
            if format != Format.txt and not is_batch:
                print(written(format, row.result), end="")
            else:
                print(f"{row.source}: {row.result['text']}" if is_batch else row.result["text"])
    report.complain()
    raise typer.Exit(many.end(report))


def temperatures(text: str) -> tuple[float, ...]:
    """Raises RecipeError where they are not numbers from 0."""
    from steer.errors import RecipeError

    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = (-1.0,)
    if not all(0 <= one < float("inf") for one in found):
        raise RecipeError(f"--temperature: {text!r} is not a number from 0, or several with commas, such as 0,0.2,0.4")
    return found
