"""`steer evaluate vectors`: what edits along control vectors change, by the way in which the vectors were found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from apps.options import Model, Sae, SaeSite

if TYPE_CHECKING:
    from steer.recipe import Recipe
    from steer.vectors import ControlVector


def vectors(
    audio: Annotated[Path, typer.Option(help="Folder of subsets, each with a manifest.csv.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.", show_default=False)],
    split: Annotated[str, typer.Option(help="Which clips: train, valid or test.")] = "test",
    clips: Annotated[int, typer.Option(min=1, help="At most this many clips of a subset.")] = 8,
    model: Model = None,
    sae: Sae = None,
    site: SaeSite = None,
) -> None:
    """What edits of strength alpha 1, 10, 20 and 30 along control vectors change, and what drifts.

    For every way in which the vectors beside the SAE were found (least squares, pairs, probe), and for random
    directions that move the activation as far. At alpha 30 the shipped vector does about 9 dB, 40 %, 12 semitones.
    """
    from apps.flags import recipe_of
    from apps.progress import track
    from apps.results import keep, results_in
    from evaluation.vector_ways import evaluate

    with results_in(out):
        recipe = recipe_of(None, {}, [], [], None, model, sae, site)
        report = evaluate(
            recipe.open(),
            beside(recipe),
            audio,
            split=split,
            clips_per_subset=clips,
            progress=lambda jobs: track(jobs, "vectors"),
        )
        keep(report, out, "vectors")


def beside(recipe: Recipe) -> dict[str, ControlVector]:
    """The vectors that lie beside the SAEs, with the names that say how each was found."""
    from steer.formats import find_folder
    from steer.recipe import VECTORS
    from steer.vectors import load_vectors

    found: dict[str, ControlVector] = {}
    for site, source in recipe.saes.items():
        path = find_folder(recipe.located(source)) / VECTORS
        for name, vector in load_vectors(path).items() if path.is_file() else ():
            found.setdefault(name, replace(vector, site=site))
    return found
