"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

MEANS = "With what"

Sounds = Annotated[list[str], typer.Argument(help="Sound files, folders or quoted globs.", show_default=False)]
Model = Annotated[str | None, typer.Option(help="Name or folder; see `steer models`.", rich_help_panel=MEANS)]
Sae = Annotated[str | None, typer.Option(help="Name or folder.", rich_help_panel=MEANS)]
SaeSite = Annotated[
    str | None,
    typer.Option(help="Where the SAE goes, if it does not say; or which of the model's own.", rich_help_panel=MEANS),
]
Json = Annotated[bool, typer.Option("--json", help="Results as JSON on stdout.")]
Force = Annotated[bool, typer.Option("--force", "-f", help="Overwrite what exists.")]


def output(help: str) -> typer.models.OptionInfo:
    """The option -o, which has to be given."""
    return typer.Option("--output", "-o", help=help, show_default=False)
