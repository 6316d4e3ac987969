"""`steer evaluate false-alarms`: see `evaluation.false_alarms`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from evaluation import false_alarms, figures
from evaluation.config import RECOGNISER, Config, Names, Subject, means, split_names
from evaluation.evaluators.options import model_of
from evaluation.frame import Evaluator
from evaluation.report import Progress, Report, TableRow, line
from evaluation.transcripts import clip_sets
from hooks.model import Transcriber
from steer.recipe import Recipe

NAME = "false-alarms"
Counts = Annotated[tuple[Annotated[int, Field(gt=0)], ...], BeforeValidator(split_names)]
Strengths = Annotated[tuple[Annotated[float, Field(gt=0, lt=float("inf"))], ...], BeforeValidator(split_names)]


class FalseAlarmsConfig(Config):
    """Take away words that a recogniser writes where nobody speaks, beside what else is done about them.

    The edit that was chosen is saved as false-alarms.yaml, for `steer transcribe --recipe`.
    """

    no_speech: Names = Field(
        default=(), description="Subsets without speech; by default sounds, noise, music and notes."
    )
    speech: Names = Field(
        default=(), description="Subsets with speech, of them clips with a text; by default all that speak."
    )
    clips: int = Field(
        default=40, ge=1, description="Maximum number of clips of a subset and split (250 to learn from)."
    )
    words: int | None = Field(
        default=None,
        ge=0,
        description="Word errors more on validation clips; by default one in 200 words, at least one.",
    )
    counts: Counts = Field(default=false_alarms.COUNTS, description="Numbers of features to try, a site.")
    strengths: Strengths = Field(default=false_alarms.STRENGTHS, description="Strengths to try.")
    fit_steps: int = Field(
        default=false_alarms.FIT_STEPS, ge=0, description="Steps in which factors are fitted; 0: only ranked."
    )
    draws: int = Field(default=5, ge=0, description="Draws of random features.")
    recipe_file: Path | None = means(None, "Instead: a recipe whose model and SAEs to take.", alias="recipe")

    default_model = RECOGNISER
    divide = True

    def recipe(self) -> Recipe:
        if self.recipe_file is None:
            return super().recipe()
        base = Recipe.load(self.recipe_file, RECOGNISER)
        model = self.model or base.located(base.model)
        if self.sae:
            return self.model_copy(update={"recipe_file": None, "model": model}).recipe()
        return Recipe.build({"model": model, "saes": {site: base.located(sae) for site, sae in base.saes.items()}})


def run(config: FalseAlarmsConfig, progress: Progress = iter) -> Report:
    sets = clip_sets(config.dataset, config.clips, config.no_speech, config.speech)
    outcome = false_alarms.evaluate(
        config.steered(),
        *sets,
        words=config.words,
        counts=config.counts,
        strengths=config.strengths,
        draws=config.draws,
        fit_steps=config.fit_steps,
        seed=config.seed,
        progress=progress,
    )
    report = outcome.report
    if config.out is not None:
        report = replace(report, about={**report.about, "notes": [keep(outcome, config.recipe(), config.out)]})
    return report


def keep(outcome: false_alarms.Outcome, base: Recipe, out: Path) -> str:
    """Save the edit that was chosen, in place of an earlier one, and say so."""
    for old in (out / f"{NAME}.yaml", out / f"{NAME}.safetensors"):
        old.unlink(missing_ok=True)
    chosen = outcome.recipe(base, out / f"{NAME}.safetensors")
    if chosen is None:
        return "no edit was better than none within the limit: there is no recipe"
    return f"the edit is {chosen.save(out / f'{NAME}.yaml', force=True)}"


def suits(subject: Subject) -> str:
    model = model_of(subject)
    return "" if isinstance(model, Transcriber) else f"{model.name} writes no words"


def headline(report: Report) -> list[TableRow]:
    rows: dict[Any, Any] = {row["method"]: row for row in report.rows}
    plain, steered = rows["baseline"], rows["SAE steering"]

    def others(column: str, shown: Callable[[Any], str]) -> dict[str, str | None]:
        left = [name for name in rows if name not in ("baseline", "SAE steering")]
        return {name: None if rows[name][column] is None else shown(rows[name][column]) for name in left}

    return [
        line(
            "clips without speech in which words are written",
            steered["false alarms"],
            unedited=plain["false alarms"],
        ),
        line("of these gone", steered["fewer"], **others("fewer", lambda one: f"{100 * one.value:.3g} %")),
        line("words per minute without speech", steered["words/min"], unedited=plain["words/min"]),
        line("WER", steered["WER"], unedited=plain["WER"]),
        line("WER change in points", steered["WER change"], **others("WER change", lambda one: f"{one.value:+.2g}")),
    ]


FALSE_ALARMS = Evaluator(
    name=NAME,
    config=FalseAlarmsConfig,
    run=run,
    figure=lambda report: figures.figure(figures.false_alarms(report)),
    headline=headline,
    panels=lambda reports: [panel for report in reports.values() for panel in figures.false_alarms(report)],
    suits=suits,
    extras=(("matplotlib", "eval"),),
)
