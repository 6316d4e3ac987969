"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

MEANS = "With what"
MANY = "Many files"

SOUNDS = "Sound files, folders, quoted globs or manifests (.csv, .jsonl)."
Sounds = Annotated[list[str], typer.Argument(help=SOUNDS, show_default=False)]
Model = Annotated[str | None, typer.Option(help="Name or folder; see `steer models`.", rich_help_panel=MEANS)]
Sae = Annotated[str | None, typer.Option(help="Name or folder.", rich_help_panel=MEANS)]
SaeSite = Annotated[
    str | None,
    typer.Option(help="Where the SAE goes, if it does not say; or which of the model's own.", rich_help_panel=MEANS),
]
Json = Annotated[bool, typer.Option("--json", help="Results as JSON on stdout.")]
Force = Annotated[bool, typer.Option("--force", "-f", help="Overwrite what exists.")]
Device = Annotated[
    str, typer.Option(help="Where the model runs: cpu, cuda or cuda:1, in each worker.", rich_help_panel=MEANS)
]
Workers = Annotated[
    int, typer.Option(min=0, help="Processes of this machine; by default this one alone.", rich_help_panel=MANY)
]
Cluster = Annotated[str, typer.Option(help="Dask scheduler, such as tcp://host:8786.", rich_help_panel=MANY)]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Try what failed before again.", rich_help_panel=MANY)
]
Journal = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the journal, by default the output's; for several commands at once.", rich_help_panel=MANY
    ),
]
Reports = Annotated[
    list[Path] | None,
    typer.Option("--report", help="File for a report, .html or .json. Repeatable.", rich_help_panel=MANY),
]


def output(help: str) -> typer.models.OptionInfo:
    """The option -o, which has to be given."""
    return typer.Option("--output", "-o", help=help, show_default=False)
