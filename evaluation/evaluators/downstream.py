"""`steer evaluate downstream`: see `evaluation.downstream`."""

from __future__ import annotations

from pydantic import Field

from evaluation import downstream, figures
from evaluation.config import RECOGNISER, Config, Names
from evaluation.evaluators.options import for_speech_models
from evaluation.frame import Evaluator
from evaluation.report import Progress, Report, TableRow, line


class DownstreamConfig(Config):
    """What the SAEs' reconstruction costs: words of a recogniser, or labels that can be read from an encoder."""

    split: Names = Field(default=("test",), description="Clips that are held out, with commas.")

    default_model = RECOGNISER
    divide = True


def run(config: DownstreamConfig, progress: Progress = iter) -> Report:
    steered = config.steered()
    sets = downstream.clip_sets(steered.model, config.dataset, config.clips, config.split)
    saes = {site: [sae] for site, sae in steered.saes.items()}
    return downstream.evaluate(steered.model, saes, *sets, progress=progress)


def headline(report: Report) -> list[TableRow]:
    plain, *rows = report.rows
    cost = "WER" if "WER" in plain else "accuracy"
    return [line(f"{cost} through the SAE at {row['site']}", row[cost], unedited=plain[cost]) for row in rows]


DOWNSTREAM = Evaluator(
    name="downstream",
    config=DownstreamConfig,
    run=run,
    figure=lambda report: figures.figure([figures.downstream(report)]),
    headline=headline,
    panels=lambda reports: [figures.downstream(report) for report in reports.values()],
    suits=for_speech_models,
    extras=(("matplotlib", "eval"),),
)
