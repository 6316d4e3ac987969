"""`steer transcribe`: write down what is said, with the edits of a recipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apps.options import MEANS, Force, Json, Sounds

if TYPE_CHECKING:  # loads torch: `steer --help` shall not wait for it
    from apps.files import Job
    from hooks.model import AudioModel, Transcriber, Transcript
    from steer.edits import Edit
    from steer.recipe import Recipe

FAILED = 1
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
    as_json: Json = False,
    force: Force = False,
) -> None:
    """Transcribe sound files, edited by a recipe or as the model is.

    Exit codes: 0 done, 1 some files of a batch failed, 2 wrong input.
    """
    from apps.files import make_folder, to_json
    from apps.flags import RECOGNISER, recogniser_recipe

    jobs, is_batch = plan(inputs, out)
    what = recogniser_recipe(recipe, model, []) if recipe else None
    transcriber, edited = opened(what, model or RECOGNISER)
    if out is not None:
        make_folder(out)
    options = language_option(transcriber, language)
    with edited:
        results = transcribe_all(transcriber, jobs, options, write=out is not None, force=force, stop=not is_batch)
    if as_json:
        about = {"model": transcriber.name, **({"recipe": what.to_dict()} if what else {})}
        print(to_json({**about, "files": [result.to_dict() for result in results]}))
    else:
        for result in results:
            if result.transcript is not None:
                print(f"{result.job.source}: {result.transcript}" if is_batch else result.transcript)
    for result in results:
        if result.error:
            named = result.error.startswith(f"{result.job.source}: ")
            print(result.error if named else f"{result.job.source}: {result.error}", file=sys.stderr)
    raise typer.Exit(FAILED if any(result.error for result in results) else 0)


@dataclass(frozen=True)
class Result:
    """A file and what was said in it, or the error in one line."""

    job: Job
    transcript: Transcript | None = None
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        if self.transcript is None:
            return {"source": str(self.job.source), "error": self.error}
        segments = [{key: segment[key] for key in TOLD if key in segment} for segment in self.transcript.segments]
        said = {"text": str(self.transcript), "language": self.transcript.language, "segments": segments}
        return {"source": str(self.job.source), **said}


def plan(inputs: Sequence[str], out: Path | None) -> tuple[list[Job], bool]:
    """What to read and where its text would go (`a.wav.txt`, in the tree below a folder), and whether that is a batch.

    Raises:
        AudioFileError: an input that holds no sound files, or two files for one place.
    """
    from apps.files import FORMATS, Job, is_glob, sources_of
    from hooks import AudioFileError

    jobs: dict[Path, Job] = {}
    for text in inputs:
        root, found = sources_of(text)
        if not found:
            raise AudioFileError(f"{text}: no sound files there ({', '.join(FORMATS)})")
        for source in found:
            name = source.relative_to(root)
            target = (out or root) / name.with_name(f"{name.name}.txt")
            if target in jobs and jobs[target].source != source:
                raise AudioFileError(f"{source} and {jobs[target].source} would both be written to {target}")
            jobs[target] = Job(source, target)
    return list(jobs.values()), len(inputs) > 1 or Path(inputs[0]).is_dir() or is_glob(inputs[0])


def opened(recipe: Recipe | None, name: str) -> tuple[Transcriber, Any]:
    """The recogniser, and the context in which it is edited.

    Raises:
        ModelError: it cannot be opened, or writes no words.
        RecipeError: goals, which are for sounds.
        EditError, SAEError, SiteError: the recipe does not fit the model.
    """
    from contextlib import nullcontext

    from hooks import open_model

    if recipe is None:
        return recogniser(open_model(name)), nullcontext()
    edits = edits_of(recipe)
    steered = recipe.open()
    return recogniser(steered.model), steered.edit(edits, padding=recipe.padding)


def edits_of(recipe: Recipe) -> dict[str, list[Edit]]:
    """{site: edits} for a transcription.

    Raises:
        RecipeError: goals, which are for sounds.
        EditError: edits that make no sense.
    """
    from steer.errors import RecipeError

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


def transcribe_all(
    model: Transcriber, jobs: Sequence[Job], options: dict[str, Any], *, write: bool, force: bool, stop: bool
) -> list[Result]:
    """File after file, with a bar; errors are collected, unless `stop` raises those that tell a user what is wrong."""
    from apps.files import make_folder, told, write_result
    from apps.progress import track
    from hooks import AudioSteerError
    from hooks.clip import check_target

    results = []
    for job in track(jobs, "transcribe"):
        try:
            if write:  # told before the work is done
                make_folder(job.target.parent)
                check_target(job.target, force)
            transcript = model.transcribe(job.source, **options)
            if write:
                text = f"{transcript}\n"
                write_result(job.target, lambda path, text=text: path.write_text(text, encoding="utf-8"), force)  # type: ignore[misc]
            results.append(Result(job, transcript))
        except Exception as error:
            if stop and isinstance(error, AudioSteerError):
                raise
            results.append(Result(job, error=told(error)))
    return results
