"""`steer evaluate all`: every evaluation that applies to a speech model, and their main numbers in one table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apps.options import MEANS, Model

if TYPE_CHECKING:  # loads torch: `steer --help` shall not wait for it
    from evaluation.report import Report

FAILED = 1


def everything(
    audio: Annotated[Path, typer.Option(help="Folder of subsets, each with a manifest.csv.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.", show_default=False)],
    clips: Annotated[int, typer.Option(min=1, help="At most this many clips of a subset and split.")] = 40,
    concepts: Annotated[
        str, typer.Option(help="Kinds of concept to remove, with commas.")
    ] = "sound,keyword,digit,speaker,speech",
    sites: Annotated[
        str, typer.Option(help="Where to remove them: middle, all, or names of sites with commas.")
    ] = "middle",
    points: Annotated[int, typer.Option(min=2, help="How many numbers of features to remove are tried.")] = 8,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure again what is there.")] = False,
    model: Model = None,
    sae: Annotated[
        list[str] | None,
        typer.Option(help="Name or folder; once for each site. Default: the model's own.", rich_help_panel=MEANS),
    ] = None,
    saes: Annotated[
        Path | None,
        typer.Option(help="Folder of SITE/seed-N/: SAEs of several seeds, for stability.", rich_help_panel=MEANS),
    ] = None,
) -> None:
    """Measure all that can be measured of a speech model and its SAEs; the same command goes on where it stopped.

    Writes NAME.json, NAME.md and NAME.png for each evaluation, and summary for the main numbers of all.

    The time it takes goes with --clips, and that of removing concepts with --points too.

    Exit codes: 0 done, 1 some evaluations failed (a line each on stderr), 2 wrong input.
    """
    from apps.commands.evaluate_parts import Setup
    from apps.results import keep, results_in
    from evaluation.summary import draw, summarise
    from hooks import AudioSteerError
    from hooks.errors import require

    require("matplotlib", "eval")  # told before the work is done
    setup = Setup.of(model, sae or [], saes, audio, out, clips)
    parts, left_out = setup.parts([kind for kind in concepts.split(",") if kind], sites, points)
    reports: dict[str, Report] = {}
    failed: dict[str, str] = {}
    with results_in(out):
        for part in parts:
            old = None if fresh else part.known(out)
            if old is not None:
                print(f"{part.name}: measured already, with the same settings")
            try:
                reports[part.name] = old or part.run(out)
            except AudioSteerError as error:
                failed[part.name] = str(error)
                print(f"{part.name}: {error}", file=sys.stderr)
                continue
            if old is None:
                reports[part.name].print()
        if not reports:
            raise typer.Exit(FAILED)
        minutes = {name: report.about["minutes"] for name, report in reports.items()}
        name = setup.steered.model.name
        about = {"model": name, "minutes": minutes, "left out": left_out, "failed": failed}
        summary = summarise(name, reports, about)
        keep(summary, out, "summary", draw(reports, summary.title))
    for name, why in left_out.items():
        print(f"{name}: left out; {why}")
    raise typer.Exit(FAILED if failed else 0)
