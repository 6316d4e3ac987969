"""`steer evaluate stability`: see `evaluation.stability`."""

from __future__ import annotations

from pathlib import Path

from evaluation import figures, stability
from evaluation.config import RECOGNISER, Subject, means
from evaluation.evaluators.options import SplitConfig, model_of
from evaluation.everything import EverythingConfig
from evaluation.frame import Evaluator, common
from evaluation.report import Progress, Report, TableRow, line
from evaluation.seeds import seeds_in
from hooks import open_model


class StabilityConfig(SplitConfig):
    """Which share of an SAE's features SAEs of other seeds have too, at each site and by three measures."""

    saes: Path = means(..., "Folder of SITE/seed-N/, as steer train writes several seeds.")

    default_model = RECOGNISER

    def open(self) -> Subject:
        if self.subject is not None:
            return self.subject
        seeds = seeds_in(self.saes)
        named = next((sae.info.model for some in seeds.values() for sae in some if sae.info.model), None)
        return open_model(self.model or named or self.default_model, device=self.device)


def run(config: StabilityConfig, progress: Progress = iter) -> Report:
    seeds = seeds_in(config.saes)
    sounds = config.dataset.sounds(None, config.split, config.clips)
    return stability.of_sounds(model_of(config.open()), seeds, sounds, seed=config.seed, progress=progress)


def plan(shared: EverythingConfig) -> dict[str, StabilityConfig] | str:
    if shared.saes is None:
        return "it takes SAEs of several seeds, as steer train --seeds makes them: pass --saes"
    seeds_in(shared.saes)  # what is wrong with them is better known before the other evaluations
    return {"stability": StabilityConfig(**common(shared, subject=model_of(shared.subject)), saes=shared.saes)}


def headline(report: Report) -> list[TableRow]:
    return [
        line(
            f"features matched at {row['site']}, {row['measure']}",
            row["matched"],
            in_every_seed=row["in every seed"],
            control=row["control"],
        )
        for row in report.rows
    ]


STABILITY = Evaluator(
    name="stability",
    config=StabilityConfig,
    run=run,
    figure=lambda report: figures.figure([figures.stability(report)]),
    headline=headline,
    panels=lambda reports: [figures.stability(report) for report in reports.values()],
    plan=plan,
    extras=(("matplotlib", "eval"),),
)
