"""The command `steer`."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any

import typer

from apps import messages
from apps.commands import (
    capture,
    convert,
    demo,
    doctor,
    edit,
    evaluate,
    export,
    features,
    models,
    probe,
    recipe,
    report,
    sites,
    train,
    transcribe,
)
from apps.config import ConfigError, defaults
from apps.exit_codes import INTERRUPTED, WRONG_INPUT
from apps.options import Quiet, Verbose, example, grouped

app = typer.Typer(
    help="Edit sound, and study audio models, through sparse autoencoders.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Every command has its own help, with an example: steer edit --help. Start with: steer doctor",
)
SOUNDS, FEATURES, MODELS = "Edit and transcribe sounds", "Features and SAEs", "Models, results and this machine"
COMMANDS: tuple[tuple[str, Callable[..., None], str], ...] = (
    (SOUNDS, edit.edit, "steer edit talk.wav -o higher.wav --pitch +4st --plot higher.png"),
    (SOUNDS, transcribe.transcribe, "steer transcribe talk.wav --model whisper:base --format srt"),
    (SOUNDS, demo.demo, "steer demo --open"),
    (FEATURES, features.features, "steer features talk.wav --sae starter:codec/latent --top 5"),
    (FEATURES, capture.capture, "steer capture talks/ -o STORE --model whisper:small --layers all"),
    (FEATURES, train.train, "steer train --store STORE --k 32 -o SAES"),
    (FEATURES, probe.probe, "steer probe talks/ -o probes.safetensors --attributes pitch,loudness"),
    (FEATURES, convert.convert, "steer convert SAES/encoder.3 -o FOLDER --to sparsify"),
    (FEATURES, export.export, "steer export starter:asr FOLDER"),
    (MODELS, models.models, "steer models"),
    (MODELS, sites.sites, "steer sites whisper:tiny"),
    (MODELS, report.report, "steer report edited/ --report edited.html"),
    (MODELS, doctor.doctor, "steer doctor"),
)
for title, command, shown in COMMANDS:
    app.command(rich_help_panel=title, epilog=example(shown))(grouped(command))
app.add_typer(evaluate.app, name="evaluate", rich_help_panel=FEATURES)
app.add_typer(recipe.app, name="recipe", rich_help_panel=SOUNDS)


def show_version(wanted: bool) -> None:
    if wanted:
        from apps.installation import own_version

        print(own_version())
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    messages.set_level(quiet, verbose)
    if context.invoked_subcommand != "doctor":  # which says what is wrong with the file
        context.default_map = defaults(context, context.invoked_subcommand)


@cache
def steer() -> Any:
    """The command with all that are below it, made once in a process."""
    return typer.main.get_command(app)


def main(arguments: list[str] | None = None) -> None:
    """Run a command and exit with its status; a user's mistake is one line on stderr and status 2."""
    # notices of transformers are not what the user of a command asked for
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    for stream in (sys.stdout, sys.stderr):
        # a file's name need not be text
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with messages.shown():
        try:
            steer()(arguments)
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)
        except ConfigError as error:
            messages.log.error(f"steer: {error}")
            sys.exit(WRONG_INPUT)
        except Exception as error:
            from hooks.errors import AudioSteerError  # loads torch, which is there by now

            if not isinstance(error, AudioSteerError):
                raise
            messages.log.error(f"steer: {error}")
            sys.exit(WRONG_INPUT)


if __name__ == "__main__":  # torchrun -m apps.cli
    main()
