"""`steer evaluate ablation`: see `evaluation.removal` and `evaluation.remaining`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from evaluation import figures, remaining, removal
from evaluation.by_layer import SITE, a_row_a_site, by_site, column_of, joined, lines
from evaluation.concept_sets import KINDS, concept_sets
from evaluation.config import RECOGNISER, Config, EvaluationError, Names
from evaluation.dataset import Dataset
from evaluation.evaluators.options import features_kept, for_speech_models
from evaluation.everything import EverythingConfig
from evaluation.frame import Evaluator, common
from evaluation.removal import Rank
from evaluation.report import Progress, Report, TableRow, line
from steer.delta import Mode
from steer.steered import SteeredModel


class AblationConfig(Config):
    """How few features have to go until a concept cannot be read from the running model, and what else goes with it.

    Without --site at each site that has an SAE: one table for all layers.
    """

    audio: Path = Field(default=Path(), description="Folder of subsets, each with a manifest.csv, or a CSV file.")
    labels: str | None = Field(
        default=None, description="Instead: columns of a CSV that has a column path: sounds.csv:label,speaker."
    )
    subsets: Names = Field(default=(), description="Which subsets, with commas. Default: all.")
    concepts: Names = Field(
        default=(),
        description="sound, keyword, digit, speaker, speech, or a column of the manifests; or one of a kind: "
        "sound=rain. With commas.",
    )
    split: Names = Field(default=("valid", "test"), description="Clips that are held out, with commas.")
    clips: int = Field(default=200, ge=1, description="Maximum number of clips of a subset and split.")
    points: int = Field(default=12, ge=2, description="How many numbers of features to try.")
    draws: int = Field(default=3, ge=0, description="Draws of random features.")
    read: Literal["model", "features"] = Field(
        default="model",
        description="Where a fresh probe reads: at a later site of the running model, or, as AudioSAE does, from the "
        "features that remain.",
    )
    later: str | None = Field(default=None, description="Site to read at; else the encoder's last. With --read model.")
    rank: Rank | None = Field(
        default=None,
        description="By what features carry of the concept (contribution), or tell of it (fisher). Default: fisher "
        "with --read features, else contribution.",
    )
    mode: Mode = Field(
        default="reconstruct", description="Without or with what the SAE cannot explain. With --read model."
    )
    pooling: remaining.Pooling = Field(
        default="max", description="A clip's features: their maximum over time or mean. With --read features."
    )

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
    steered = config.steered()
    sets = concept_sets(dataset, config.kinds(dataset), config.split, config.clips, config.subsets)
    shared: dict[str, Any] = {"points": config.points, "draws": config.draws, "seed": config.seed, "progress": progress}
    sites = [config.site] if config.site else list(steered.saes)
    if config.read == "features":
        reports = remaining.evaluate(
            steered,
            *sets,
            config.concepts,
            sites=sites,
            rank=config.rank or "fisher",
            pooling=config.pooling,
            kept=features_kept(config, steered),
            **shared,
        )
    else:
        reports = {
            site: removal.evaluate(
                steered,
                *sets,
                config.concepts,
                site=site,
                later=config.later,
                rank=config.rank or "contribution",
                mode=config.mode,
                **shared,
            )
            for site in sites
        }
    where = "until the rest does not tell a concept" if config.read == "features" else "until a concept cannot be read"
    return joined(reports, f"Features of {steered.model.name} removed {where}")


def layers(report: Report, column: str) -> Report:
    return a_row_a_site(f"{report.title}: {column}", report.rows, column_of(report.rows), column)


def tables(report: Report) -> list[Report]:
    """Of several sites also tables with a row a site: the features needed, for each kind of concept."""
    return [layers(report, "needed"), layers(report, "random"), report] if SITE in report.rows[0] else [report]


def figure(report: Report) -> Any:
    if SITE not in report.rows[0]:
        return removal.draw(report)
    panel = lines(
        report.title,
        "% of the features that fire",
        layers(report, "needed"),
        layers(report, "random"),
        dashes="random order",
    )
    return figures.figure([panel])


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
    return [one for site, rows in by_site(report.rows).items() for one in main_numbers(rows[-1], site)]


def main_numbers(row: Mapping[str, Any], site: str) -> list[TableRow]:
    at = f" at {site}" if site else ""
    return [
        line(f"features needed{at}, {row['concept']}", row["needed"], random=row["random"]),
        line(f"what is left of the concept{at}", row.get("left")),
        line(f"what other concepts keep{at}", row["others keep"]),
    ]


ABLATION = Evaluator(
    name="ablation",
    config=AblationConfig,
    run=run,
    figure=figure,
    headline=headline,
    tables=tables,
    panels=lambda reports: [
        figures.removal({name.removeprefix("ablation-"): report for name, report in reports.items()})
    ],
    suits=for_speech_models,
    plan=plan,
    extras=(("matplotlib", "eval"),),
)
