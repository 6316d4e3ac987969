"""`steer transcribe`: write down what is said, with the edits of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apps.options import MEANS, Cluster, Device, Force, Journal, Json, Reports, RetryFailed, Sounds, Workers

if TYPE_CHECKING:  # loads torch: `steer --help` shall not wait for it
    from hooks.model import AudioModel, Transcriber, Transcript
    from steer.edits import Edit
    from steer.recipe import Recipe

FAILED = 1
TOGETHER, TOGETHER_S = 8, 240.0
"""So many files go through the model at once, of so many seconds together."""
TOLD = ("start", "end", "text", "avg_logprob", "no_speech_prob")
"""What JSON says of a segment, as far as the model's library tells it."""


def transcribe(
    inputs: Sounds,
    out: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for a .txt for each file.", show_default=False)
    ] = None,
    language: Annotated[str | None, typer.Option(help="Such as en; else the model finds it out.")] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Name or folder; by default the recipe's, or starter:asr.", rich_help_panel=MEANS),
    ] = None,
    recipe: Annotated[Path | None, typer.Option(help="YAML or JSON; SAEs and edits.", rich_help_panel=MEANS)] = None,
    device: Device = "cpu",
    journal: Journal = None,
    workers: Workers = 0,
    cluster: Cluster = "",
    retry_failed: RetryFailed = False,
    reports: Reports = None,
    as_json: Json = False,
    force: Force = False,
) -> None:
    """Transcribe sound files, edited by a recipe or as the model is.

    With -o there is a journal of what is done: the same command does what is missing or changed.

    Exit codes: 0 done, 1 some files of a batch failed, 2 wrong input.
    """
    from apps.batch.jobs import Row, plan
    from apps.batch.recipes import own_recipes
    from apps.batch.report import BatchReport, check_names
    from apps.batch.run import How, do_batch
    from apps.batch.transcribe_work import TranscribeTask
    from apps.files import to_json
    from apps.flags import RECOGNISER, anywhere, recogniser_recipe
    from apps.inputs import inputs_of
    from steer.recipe import Recipe

    found, is_batch = inputs_of(inputs)
    check_names(reports or [])

    def with_model(base: Recipe) -> Recipe:
        return recogniser_recipe(base, model, [])

    what = with_model(Recipe.load(recipe, RECOGNISER)) if recipe else None
    task = TranscribeTask(what, anywhere(model or RECOGNISER), language, device)
    jobs = plan(
        found,
        out,
        lambda name: name.with_name(f"{name.name}.txt"),
        lambda name: None,
        own_recipes(task.fingerprint, with_model, RECOGNISER),
    )
    how = How(workers, cluster, force, retry_failed, journal=journal, alone=not is_batch)
    finished = do_batch(task, jobs, out, how, files=TOGETHER, seconds=TOGETHER_S)
    report = BatchReport("transcribed", finished.rows, finished.this_call, finished.warning)

    def listed(row: Row) -> dict[str, Any]:
        return row.failure() if row.error else {"source": row.source, **row.result}

    if as_json:
        about = {"model": what.model if what else task.model, **({"recipe": what.to_dict()} if what else {})}
        files = [listed(row) for row in finished.rows]
        print(to_json({**about, "files": files, **({"report": report.to_dict()} if is_batch else {})}))
    else:
        for row in finished.rows:
            if not row.error:
                print(f"{row.source}: {row.result['text']}" if is_batch else row.result["text"])
    for path in reports or []:
        report.save(path)
    report.complain()
    raise typer.Exit(FAILED if report.failed else 0)


def said(transcript: Transcript) -> dict[str, Any]:
    """Plain values of a transcript."""
    segments = [{key: segment[key] for key in TOLD if key in segment} for segment in transcript.segments]
    return {"text": str(transcript), "language": transcript.language, "segments": segments}


def edits_of(recipe: Recipe) -> dict[str, list[Edit]]:
    """{site: edits} for a transcription.

    Raises:
        RecipeError: goals, which are for sounds.
        EditError: edits that make no sense.
    """
    from steer.errors import RecipeError

    if recipe.voice.active:
        raise RecipeError("voice is for edited sounds; a transcription takes edits")
    if recipe.wanted:
        raise RecipeError(f"goals ({', '.join(recipe.wanted)}) are for edited sounds; a transcription takes edits")
    return recipe.edits_for()


def recogniser(model: AudioModel) -> Transcriber:
    """The same model; raises ModelError where it writes no words."""
    from hooks import ModelError
    from hooks.model import Transcriber

    if not isinstance(model, Transcriber):
        raise ModelError(f"{model.name} is a {model.kind} and writes no words; pass a recogniser, such as starter:asr")
    return model


def language_option(model: Transcriber, language: str | None) -> dict[str, str]:
    """What tells the model the language; one that knows English alone cannot be told.

    Raises:
        ModelError: another language for such a model.
    """
    from hooks import ModelError

    if language is None:
        return {}
    # transformers keeps it there, openai-whisper's module says it itself
    if getattr(getattr(model.module, "generation_config", model.module), "is_multilingual", True):
        return {"language": language}
    if language.lower() not in ("en", "english"):
        raise ModelError(f"{model.name} knows English alone; leave out --language {language}")
    return {}
