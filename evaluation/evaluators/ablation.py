"""`steer evaluate ablation`: see `evaluation.removal`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from evaluation import figures, removal
from evaluation.concept_sets import KINDS, concept_sets
from evaluation.config import RECOGNISER, Config, EvaluationError, Names
from evaluation.dataset import Dataset
from evaluation.evaluators.options import for_speech_models
from evaluation.everything import EverythingConfig
from evaluation.frame import Evaluator, common
from evaluation.removal import Rank
from evaluation.report import Progress, Report, TableRow, line
from steer.delta import Mode
from steer.steered import SteeredModel


class AblationConfig(Config):
    """How few features have to go until a concept cannot be read from the running model, and what else goes with it."""

    audio: Path = Field(default=Path(), description="Folder of subsets, each with a manifest.csv, or a CSV file.")
    labels: str | None = Field(
        default=None, description="Instead: columns of a CSV that has a column path: sounds.csv:label,speaker."
    )
    concepts: Names = Field(
        default=(),
        description="sound, keyword, digit, speaker, speech, or a column of the manifests; or one of a kind: "
        "sound=rain. With commas.",
    )
    split: Names = Field(default=("valid", "test"), description="Clips that are held out, with commas.")
    clips: int = Field(default=200, ge=1, description="Maximum number of clips of a subset and split.")
    points: int = Field(default=12, ge=2, description="How many numbers of features to try.")
    draws: int = Field(default=3, ge=0, description="Draws of random features.")
    later: str | None = Field(default=None, description="Site to read at; else the encoder's last.")
    rank: Rank = Field(default="contribution", description="By what features carry of the concept, or tell of it.")
    mode: Mode = Field(default="reconstruct", description="Without or with what the SAE cannot explain.")

    default_model = RECOGNISER
    divide = True

    @model_validator(mode="after")
    def _one_source(self) -> AblationConfig:
        if (self.audio == Path()) == (self.labels is None):
            raise ValueError("say which clips: either --audio FOLDER or --labels FILE.csv:COLUMN")
        return self

    @property
    def dataset(self) -> Dataset:
        audio = Path(self.labels_of[0]) if self.labels_of else self.audio
        return Dataset(audio, self.columns, self.splits, self.divide)

    @property
    def labels_of(self) -> tuple[str, list[str]] | None:
        """The CSV and its columns that are named by `labels`."""
        if self.labels is None:
            return None
        file, colon, columns = self.labels.rpartition(":")
        return (file, columns.split(",")) if colon else (columns, ["label"])

    def kinds(self, dataset: Dataset) -> list[str]:
        """Kinds of concept that are wanted."""
        if self.labels_of:
            return self.labels_of[1]
        own = KINDS["sound"].partition(":")[0] in dataset.subsets
        wanted = dict.fromkeys(name.partition("=")[0] for name in self.concepts)
        return list(wanted) or ["sound" if own else "label"]


def run(config: AblationConfig, progress: Progress = iter) -> Report:
    dataset = config.dataset
    return removal.evaluate(
        config.steered(),
        *concept_sets(dataset, config.kinds(dataset), config.split, config.clips),
        config.concepts,
        site=config.site,
        later=config.later,
        points=config.points,
        draws=config.draws,
        rank=config.rank,
        mode=config.mode,
        seed=config.seed,
        progress=progress,
    )


def plan(shared: EverythingConfig) -> dict[str, AblationConfig] | str:
    """Each kind of concept at each of the sites."""
    return {
        f"ablation-{kind}-{site}": AblationConfig(**common(shared, site=site), concepts=(kind,), points=shared.points)
        for site in chosen(shared.steered(), shared.sites)
        for kind in shared.concepts
    }


def chosen(steered: SteeredModel, text: str) -> list[str]:
    """Sites to remove concepts at: a later one to read at has to follow.

    Raises:
        EvaluationError: a site without an SAE.
    """
    encoder = [name for name in steered.model.sites if not name.startswith("decoder")]
    able = [name for name in encoder[:-1] if name in steered.saes]
    if text == "all":
        return able
    if text == "middle":
        return able[len(able) // 2 :][:1]
    names = text.split(",")
    for name in names:
        if name not in steered.saes:
            raise EvaluationError(f"--sites: there is no SAE at {name!r}; there are SAEs at {', '.join(steered.saes)}")
    return names


def headline(report: Report) -> list[TableRow]:
    row: Mapping[str, Any] = report.rows[-1]
    return [
        line(f"features needed, {row['concept']}", row["needed"], random=row["random"]),
        line("what is left of the concept", row.get("left")),
        line("what other concepts keep", row["others keep"]),
    ]


ABLATION = Evaluator(
    name="ablation",
    config=AblationConfig,
    run=run,
    figure=removal.draw,
    headline=headline,
    panels=lambda reports: [
        figures.removal({name.removeprefix("ablation-"): report for name, report in reports.items()})
    ],
    suits=for_speech_models,
    plan=plan,
    extras=(("matplotlib", "eval"),),
)
