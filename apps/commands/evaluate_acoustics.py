"""`steer evaluate acoustics` and `residuals`: requested changes of loudness, brightness and pitch in users' files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from apps.options import Model, Sae, SaeSite

if TYPE_CHECKING:
    from evaluation.report import Report

Audio = Annotated[Path, typer.Option(help="Folder of subsets, each with a manifest.csv.", show_default=False)]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.", show_default=False)]
Split = Annotated[str, typer.Option(help="Which clips: train, valid or test.")]
Subsets = Annotated[str, typer.Option(help="Which subsets, with commas. Default: those that are evaluated on.")]
Requests = Annotated[str, typer.Option(help="How many requests for each clip and attribute are drawn, or all.")]


def acoustics(
    audio: Audio,
    out: Out,
    split: Split = "test",
    clips: Annotated[int, typer.Option(min=1, help="At most this many clips of a subset.")] = 40,
    subsets: Subsets = "",
    requests: Requests = "2",
    residual: Annotated[
        Literal["ratio", "drop", "keep"] | None,
        typer.Option(help="How the change reaches the sound. Default: as steer edit does it.", show_default=False),
    ] = None,
    control_clips: Annotated[
        int, typer.Option(min=0, help="Clips of a subset that random directions are tried on.")
    ] = 10,
    model: Model = None,
    sae: Sae = None,
    site: SaeSite = None,
) -> None:
    """How often requested changes of loudness, brightness and pitch are met in the user's file, and what drifts.

    Every clip is edited from file to file and measured on the written file.
    """
    from apps.flags import recipe_of
    from apps.progress import track
    from apps.results import results_in
    from evaluation.acoustics_run import SUBSETS, evaluate
    from evaluation.figures import figure, requested
    from evaluation.suite import write
    from hooks.errors import require

    require("matplotlib", "eval")  # told before the work is done
    require("torchcrepe", "eval")
    count = requests_of(requests)
    with results_in(out):
        recipe = recipe_of(None, {}, [], [], None, model, sae, site)
        report = evaluate(
            recipe.open(),
            recipe.control_vectors(),
            audio,
            split=split,
            subsets=named(subsets) or SUBSETS,
            clips_per_subset=clips,
            requests=count,
            residual=residual,
            control_clips=control_clips,
            saes=recipe.saes,
            progress=lambda jobs: track(jobs, "acoustics"),
        )
        write(report, out, "acoustics", figure(requested(report), report.title))
    show(report, out / "acoustics.md")


def residuals(
    audio: Audio,
    out: Out,
    split: Split = "test",
    clips: Annotated[int, typer.Option(min=1, help="At most this many clips of a subset.")] = 10,
    subsets: Subsets = "",
    requests: Requests = "2",
    model: Model = None,
    sae: Sae = None,
    site: SaeSite = None,
) -> None:
    """Compare the ways in which an edit reaches the sound (ratio, drop, keep) with an ideal edit by DSP."""
    from apps.flags import recipe_of
    from apps.progress import track
    from apps.results import results_in
    from evaluation.residuals import SUBSETS, evaluate
    from evaluation.suite import write
    from hooks.errors import require

    require("pystoi", "eval")
    require("pesq", "eval")
    count = requests_of(requests)
    with results_in(out):
        recipe = recipe_of(None, {}, [], [], None, model, sae, site)
        report = evaluate(
            recipe.open(),
            recipe.control_vectors(),
            audio,
            split=split,
            subsets=named(subsets) or SUBSETS,
            clips_per_subset=clips,
            requests=count,
            saes=recipe.saes,
            progress=lambda jobs: track(jobs, "residuals"),
        )
        write(report, out, "residuals")
    show(report, out / "residuals.md")


def show(report: Report, table: Path) -> None:
    """The table without its intervals, which would not fit."""
    report.print(intervals=False)
    print(f"95 % intervals are in {table}")


def named(subsets: str) -> list[str]:
    return [name.strip() for name in subsets.split(",") if name.strip()]


def requests_of(text: str) -> int | None:
    """A number, or None for all.

    Raises:
        RecipeError: it is neither.
    """
    from steer.errors import RecipeError

    if text == "all":
        return None
    if not text.isdigit() or not int(text):
        raise RecipeError(f"--requests {text}: give a number from 1 on, or all")
    return int(text)
