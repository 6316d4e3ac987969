"""The command `steer`."""

from __future__ import annotations

import io
import os
import sys
from functools import cache
from typing import Annotated, Any

import typer

from apps.commands import (
    capture,
    convert,
    demo,
    edit,
    evaluate,
    export,
    features,
    manifest,
    models,
    probe,
    recipe,
    report,
    sites,
    train,
    transcribe,
)
from apps.exit_codes import INTERRUPTED, WRONG_INPUT
from apps.options import grouped

app = typer.Typer(
    help="Edit sound, and study audio models, through sparse autoencoders.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    capture.capture,
    convert.convert,
    demo.demo,
    edit.edit,
    export.export,
    features.features,
    manifest.manifest,
    models.models,
    report.report,
    sites.sites,
    train.train,
    probe.probe,
    transcribe.transcribe,
):
    app.command()(grouped(command))
app.add_typer(evaluate.app, name="evaluate")
app.add_typer(recipe.app, name="recipe")


def show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(version("audiosteer"))
        except PackageNotFoundError:  # run from a checkout
            from steer import __version__

            print(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@cache
def steer() -> Any:
    """The command with all that are below it, made once in a process."""
    return typer.main.get_command(app)


def main(arguments: list[str] | None = None) -> None:
    """Run a command and leave by its exit code; a user's mistake is one line on stderr and code 2."""
    # what transformers tells of itself is not what a command's user asked for
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    for stream in (sys.stdout, sys.stderr):
        # a file's name need not be text
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        steer()(arguments)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        from hooks.errors import AudioSteerError  # loads torch, which is there by now

        if not isinstance(error, AudioSteerError):
            raise
        print(f"steer: {error}", file=sys.stderr)
        sys.exit(WRONG_INPUT)


if __name__ == "__main__":  # torchrun -m apps.cli
    main()
