"""`steer evaluate acoustics`: see `evaluation.acoustics_run`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from evaluation import acoustics_run, figures
from evaluation.evaluators.options import CountOrAll, SubsetsConfig, for_codecs, own_or_all
from evaluation.frame import Evaluator, Progress
from evaluation.headline import line
from evaluation.report import Report, TableRow


class AcousticsConfig(SubsetsConfig):
    """How often requested changes of loudness, brightness and pitch are met in the user's file, and what drifts.

    Every clip is edited from file to file and measured on the written file.
    """

    requests: CountOrAll = Field(
        default=2, description="How many requests for each clip and attribute are drawn, or all."
    )
    residual: Literal["ratio", "drop", "keep"] | None = Field(
        default=None, description="How the change reaches the sound. Default: as steer edit does it."
    )
    control_clips: int = Field(default=10, ge=0, description="Clips of a subset that random directions are tried on.")
    vectors: Any = Field(default=None, exclude=True, repr=False)
    """Control vectors by name, in place of those beside the SAE."""


def run(config: AcousticsConfig, progress: Progress = iter) -> Report:
    recipe = config.recipe() if config.vectors is None else None
    dataset = config.dataset
    return acoustics_run.evaluate(
        config.steered(),
        config.vectors if recipe is None else recipe.control_vectors(),
        dataset,
        split=config.split,
        subsets=config.subsets or own_or_all(dataset, acoustics_run.SUBSETS),
        clips_per_subset=config.clips,
        requests=config.requests,
        residual=config.residual,
        control_clips=config.control_clips,
        saes=recipe.saes if recipe else None,
        seed=config.seed,
        progress=progress,
    )


def headline(report: Report) -> list[TableRow]:
    return [
        line(f"requests met in the file, {row['attribute']}", row["met"], random_directions=row["control met"])
        for row in report.rows
        if row["clips"] == "all"
    ]


def panels(reports: Mapping[str, Report]) -> list[figures.Panel]:
    return [panel for report in reports.values() for panel in figures.requested(report)]


ACOUSTICS = Evaluator(
    name="acoustics",
    config=AcousticsConfig,
    run=run,
    figure=lambda report: figures.figure(figures.requested(report), report.title),
    headline=headline,
    panels=panels,
    intervals=False,
    suits=for_codecs,
    extras=(("matplotlib", "eval"), ("torchcrepe", "eval")),
)
