"""`steer evaluate vectors`: see `evaluation.vector_ways`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import Field

from evaluation import vector_ways
from evaluation.evaluators.options import SubsetsConfig, for_codecs, own_or_all
from evaluation.frame import Evaluator, Progress
from evaluation.headline import line
from evaluation.report import Report, TableRow
from steer.formats import find_folder
from steer.recipe import VECTORS as FILE
from steer.recipe import Recipe
from steer.vectors import ControlVector, load_vectors


class VectorsConfig(SubsetsConfig):
    """What edits of strength alpha 1, 10, 20 and 30 along control vectors change, and what drifts.

    For every way in which the vectors beside the SAE were found (least squares, pairs, probe), and for random
    directions that move the activation as far. At alpha 30 the shipped vector does about 9 dB, 40 %, 12 semitones.
    """

    clips: int = Field(default=8, ge=1, description="Maximum number of clips of a subset.")
    vectors: Any = Field(default=None, exclude=True, repr=False)
    """Control vectors by name, in place of those beside the SAE."""


def run(config: VectorsConfig, progress: Progress = iter) -> Report:
    dataset = config.dataset
    return vector_ways.evaluate(
        config.steered(),
        beside(config.recipe()) if config.vectors is None else config.vectors,
        dataset,
        split=config.split,
        subsets=config.subsets or own_or_all(dataset, vector_ways.SUBSETS),
        clips_per_subset=config.clips,
        seed=config.seed,
        progress=progress,
    )


def beside(recipe: Recipe) -> dict[str, ControlVector]:
    """The vectors that lie beside the SAEs, with the names that say how each was found."""
    found: dict[str, ControlVector] = {}
    for site, source in recipe.saes.items():
        path = find_folder(recipe.located(source)) / FILE
        for name, vector in load_vectors(path).items() if path.is_file() else ():
            found.setdefault(name, replace(vector, site=site))
    return found


def headline(report: Report) -> list[TableRow]:
    last = f"alpha {vector_ways.ALPHAS[-1]:g}"
    random = {row["attribute"]: row for row in report.rows if row["way"] == vector_ways.RANDOM}
    shipped = {row["attribute"]: row for row in reversed(report.rows)}
    return [
        line(f"change at {last}, {attribute}", row[last], random_directions=random[attribute][last])
        for attribute, row in reversed(shipped.items())
    ]


VECTORS = Evaluator(
    name="vectors",
    config=VectorsConfig,
    run=run,
    headline=headline,
    suits=for_codecs,
    extras=(("torchcrepe", "eval"),),
)
