"""`steer report`: what a batch came to, from its journals."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from apps.exit_codes import FAILED
from apps.options import Json, Reports


def report(
    folders: Annotated[
        list[Path],
        typer.Argument(help="Folders with the journals of a batch, also of one at work.", show_default=False),
    ],
    reports: Reports = None,
    as_json: Json = False,
) -> None:
    """Show what a batch came to: counts, failures with their reasons, measured changes.

    Exit codes: 0 all files are done, 1 some failed, 2 wrong input.
    """
    from rich.console import Console

    from apps.batch.journal import read_rows
    from apps.batch.report import BatchReport, check_names
    from apps.files import to_json

    check_names(reports or [])
    told = BatchReport("done", [row for folder in folders for row in read_rows(folder)])
    if as_json:
        print(to_json(told.to_dict()))
    else:
        told.show(Console())
    for path in reports or []:
        told.save(path)
    raise typer.Exit(FAILED if told.failed else 0)
