"""`steer evaluate all`: what its options are, and the main numbers of all evaluations in one table and one figure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from evaluation import figures
from evaluation.config import RECOGNISER, Config, EvaluationError, Names, means
from evaluation.frame import Evaluator
from evaluation.report import Report
from evaluation.seeds import StabilityError, folders_in
from steer.recipe import default_saes


class EverythingConfig(Config):
    """Measure all that can be measured of a model and its SAEs; the same command goes on where it stopped.

    Writes NAME.json, NAME.md and NAME.png for each evaluation, and summary for the main numbers of all.

    The time it takes goes with --clips, and that of removing concepts with --points too.

    Exit codes: 0 done, 1 some evaluations failed (a line each on stderr), 2 wrong input.
    """

    concepts: Names = Field(
        default=("sound", "keyword", "digit", "speaker", "speech"),
        description="Kinds of concept to remove, with commas.",
    )
    sites: str = Field(
        default="middle", description="Where to remove them: middle, all, or names of sites with commas."
    )
    points: int = Field(default=8, ge=2, description="How many numbers of features to remove are tried.")
    saes: Path | None = means(None, "Folder of SITE/seed-N/: SAEs of several seeds, for stability.")

    default_model = RECOGNISER

    def resolved(self) -> EverythingConfig:
        """With the SAEs that are named, else the model's own, else the first of the seeds, and all of it open.

        Raises:
            StabilityError: there are no SAEs of several seeds.
            AudioSteerError: the model or an SAE cannot be opened.
        """
        folders = folders_in(self.saes) if self.saes else {}
        if self.saes and not folders:
            raise StabilityError(f"{self.saes}: no SAEs there; they would be in SITE/seed-N/")
        sae = self.sae
        if not sae and not default_saes(self.model or self.default_model):
            sae = tuple(str(paths[0]) for paths in folders.values())
        config = self.model_copy(update={"sae": sae})
        return config.model_copy(update={"subject": config.open()})


@dataclass(frozen=True)
class Planned:
    """A result to measure: the evaluator and its options."""

    evaluator: Evaluator[Any]
    config: Config


def plan(config: EverythingConfig, evaluators: Iterable[Evaluator[Any]]) -> tuple[dict[str, Planned], dict[str, str]]:
    """{name of a result: how to measure it}, and why other evaluators are left out.

    Raises:
        EvaluationError: there is nothing to measure.
        AudioSteerError: the model or an SAE cannot be opened.
    """
    config = config.resolved()
    planned: dict[str, Planned] = {}
    left_out: dict[str, str] = {}
    for evaluator in evaluators:
        found = evaluator.planned(config)
        if isinstance(found, str):
            left_out[evaluator.name] = found
        else:
            planned |= {name: Planned(evaluator, one) for name, one in found.items()}
    if not planned:
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        raise EvaluationError(f"there is nothing to measure ({reasons})")
    return planned, left_out


def summarise(
    model: str, reports: Mapping[str, Report], planned: Mapping[str, Planned], about: Mapping[str, Any]
) -> Report:
    """A row for each main number: the result with its interval, and what it is to be compared with."""
    rows = [
        {"evaluation": name, **row}
        for name, report in reports.items()
        for row in planned[name].evaluator.headline(report)
    ]
    return Report(f"{model}: main numbers", rows, [], about)


def draw(reports: Mapping[str, Report], planned: Mapping[str, Planned], title: str) -> Any:
    """What each evaluator shows of its reports, in one figure; None where none of them shows anything.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    by_evaluator: dict[str, dict[str, Report]] = {}
    for name, report in reports.items():
        by_evaluator.setdefault(planned[name].evaluator.name, {})[name] = report
    panels = [panel for own in by_evaluator.values() for panel in planned[next(iter(own))].evaluator.panels(own)]
    return figures.figure(panels, title) if panels else None
