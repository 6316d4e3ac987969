"""`steer evaluate residuals`: see `evaluation.residuals`."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from evaluation import residuals
from evaluation.evaluators.options import CountOrAll, SubsetsConfig, for_codecs, own_or_all
from evaluation.frame import Evaluator, Progress
from evaluation.headline import line
from evaluation.report import Report, TableRow


class ResidualsConfig(SubsetsConfig):
    """Compare the ways in which an edit reaches the sound (ratio, drop, keep) with an ideal edit by DSP."""

    clips: int = Field(default=10, ge=1, description="Maximum number of clips of a subset.")
    requests: CountOrAll = Field(
        default=2, description="How many requests for each clip and attribute are drawn, or all."
    )
    vectors: Any = Field(default=None, exclude=True, repr=False)
    """Control vectors by name, in place of those beside the SAE."""


def run(config: ResidualsConfig, progress: Progress = iter) -> Report:
    recipe = config.recipe() if config.vectors is None else None
    dataset = config.dataset
    return residuals.evaluate(
        config.steered(),
        config.vectors if recipe is None else recipe.control_vectors(),
        dataset,
        split=config.split,
        subsets=config.subsets or own_or_all(dataset, residuals.SUBSETS),
        clips_per_subset=config.clips,
        requests=config.requests,
        saes=recipe.saes if recipe else None,
        seed=config.seed,
        progress=progress,
    )


def headline(report: Report) -> list[TableRow]:
    """Of the way that edits take by default."""
    by_way = {(row["attribute"], row["way"]): row["mel (dB)"] for row in report.rows if row["clips"] == "all"}
    return [
        line(
            f"mel distance (dB) from the ideal edit, {attribute}", result, input=by_way[attribute, residuals.UNTOUCHED]
        )
        for (attribute, way), result in by_way.items()
        if way == residuals.WAYS[0]
    ]


RESIDUALS = Evaluator(
    name="residuals",
    config=ResidualsConfig,
    run=run,
    headline=headline,
    intervals=False,
    suits=for_codecs,
    extras=(("pystoi", "eval"), ("pesq", "eval")),
)
