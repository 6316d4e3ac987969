"""`steer evaluate reconstruction`: the quality of a codec's round trip, beside other codecs, MP3 and Opus."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apps.options import Model, Sae, SaeSite

if TYPE_CHECKING:
    from hooks import AudioModel
    from steer import SteeredModel


def reconstruction(
    audio: Annotated[Path, typer.Option(help="Folder of subsets, each with a manifest.csv.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.", show_default=False)],
    split: Annotated[str, typer.Option(help="Which clips: train, valid or test.")] = "test",
    clips: Annotated[int, typer.Option(min=1, help="At most this many clips of a subset.")] = 40,
    subsets: Annotated[
        str, typer.Option(help="Which subsets, with commas; chords and drums are made. Default: all that are there.")
    ] = "",
    also: Annotated[
        list[str] | None, typer.Option(help="Another codec to measure too, with its own SAE if it has one. Repeatable.")
    ] = None,
    yardsticks: Annotated[
        bool, typer.Option("--yardsticks/--no-yardsticks", help="Measure MP3 and Opus too; this needs ffmpeg.")
    ] = True,
    model: Model = None,
    sae: Sae = None,
    site: SaeSite = None,
) -> None:
    """What the codec's plain round trip keeps, and what its quantiser and the SAE cost.

    Mel distance and SDR are measured for every sound; STOI, PESQ and DNSMOS (extra mos) for speech; the pitch for
    sounds that have one. A codec without an SAE of its own is measured without one.
    """
    from apps.progress import track
    from apps.results import results_in
    from evaluation.reconstruction import by_subset, evaluate
    from evaluation.suite import write

    with results_in(out):
        report = evaluate(
            opened(model, sae, site),
            audio,
            split=split,
            subsets=[name.strip() for name in subsets.split(",")] if subsets else None,
            clips_per_subset=clips,
            also={name: opened(name, None, None) for name in also or []},
            with_yardsticks=yardsticks,
            progress=lambda jobs: track(jobs, "reconstruction"),
        )
        write(report, out, "reconstruction")
    for part in by_subset(report):
        part.print(intervals=False)
    print(f"means over clips; their 95 % intervals are in {out / 'reconstruction.md'}")
    for name, why in report.about["left out"].items():
        print(f"{name}: left out; {why}")


def opened(model: str | None, sae: str | None, site: str | None) -> SteeredModel | AudioModel:
    """The model with its SAE; without one where none is named and it has none of its own."""
    from apps.flags import recipe_of
    from hooks import open_model
    from steer.recipe import default_saes

    if model is not None and sae is None and site is None and not default_saes(model):
        return open_model(model)
    return recipe_of(None, {}, [], [], None, model, sae, site).open()
