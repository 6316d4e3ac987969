"""`steer evaluate sparse-probing`: see `evaluation.sparse_probing`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from evaluation import figures, sparse_probing
from evaluation.by_layer import SITE, a_row_a_site, by_site, column_of, joined, lines
from evaluation.concept_sets import KINDS, concept_sets
from evaluation.config import RECOGNISER, Config, Names, split_names
from evaluation.evaluators.options import features_kept, for_speech_models
from evaluation.frame import Evaluator
from evaluation.remaining import Pooling
from evaluation.report import Progress, Report, TableRow, line

Counts = Annotated[tuple[Annotated[int, Field(gt=0)], ...], BeforeValidator(split_names)]


class SparseProbingConfig(Config):
    """How few features of an SAE tell a concept, at each layer that has one: what a model knows where."""

    subsets: Names = Field(default=(), description="Which subsets, with commas. Default: all.")
    concepts: Names = Field(
        default=(),
        description="sound, keyword, digit, speaker, speech, or a column of the manifests; or one of a kind: "
        "sound=rain. With commas. Default: those of the first four that are there.",
    )
    split: Names = Field(default=("valid", "test"), description="Clips that are held out, with commas.")
    clips: int = Field(default=200, ge=1, description="Maximum number of clips of a subset and split.")
    counts: Counts = Field(default=sparse_probing.COUNTS, min_length=1, description="Numbers of features to try.")
    draws: int = Field(default=5, ge=0, description="Draws of random features.")
    pooling: Pooling = Field(default="max", description="A clip's features: their maximum over time or mean.")

    default_model = RECOGNISER
    divide = True

    @property
    def kinds(self) -> list[str]:
        """Kinds of concept that are wanted."""
        there = [kind for kind, place in KINDS.items() if place.partition(":")[0] in self.dataset.subsets]
        return list(dict.fromkeys(name.partition("=")[0] for name in self.concepts)) or there or ["label"]


def run(config: SparseProbingConfig, progress: Progress = iter) -> Report:
    steered = config.steered()
    reports = sparse_probing.evaluate(
        steered,
        *concept_sets(config.dataset, config.kinds, config.split, config.clips, config.subsets),
        config.concepts,
        sites=[config.site] if config.site else list(steered.saes),
        counts=config.counts,
        draws=config.draws,
        pooling=config.pooling,
        seed=config.seed,
        kept=features_kept(config, steered),
        progress=progress,
    )
    return joined(reports, f"Balanced accuracy of probes on the best features of {steered.model.name}")


def columns(report: Report) -> list[str]:
    """The numbers of features, and all."""
    return [name for name in report.rows[0] if name.isdecimal() or name == sparse_probing.ALL]


def layers(report: Report, column: str) -> Report:
    return a_row_a_site(f"{report.title}: {column}", report.rows, column_of(report.rows), column)


def tables(report: Report) -> list[Report]:
    """Of several sites also a table with a row a site for each number of features."""
    return [*(layers(report, column) for column in columns(report)), report] if SITE in report.rows[0] else [report]


def figure(report: Report) -> Any:
    """Of several sites a panel for each number of features, with a line for each kind of concept; the dotted lines are
    those of random features."""
    if SITE not in report.rows[0]:
        return None
    random = next((name for name in report.rows[0] if name.startswith(sparse_probing.RANDOM)), None)
    panels = [
        lines(
            "All features that fire" if column == sparse_probing.ALL else f"Number of features: {column}",
            "balanced accuracy in %",
            layers(report, column),
            layers(report, random) if random else None,
            dashes=random or "",
        )
        for column in columns(report)
    ]
    return figures.figure(panels, report.title)


def headline(report: Report) -> list[TableRow]:
    first, *_ = columns(report)
    return [
        line(
            f"balanced accuracy{f' at {site}' if site else ''}, {rows[-1]['concept']}, number of features: {first}",
            rows[-1][first],
            all_features=rows[-1][sparse_probing.ALL],
        )
        for site, rows in by_site(report.rows).items()
    ]


SPARSE_PROBING = Evaluator(
    name="sparse-probing",
    config=SparseProbingConfig,
    run=run,
    figure=figure,
    headline=headline,
    tables=tables,
    intervals=False,
    suits=for_speech_models,
    plan=lambda shared: "it is for all layers at once; run steer evaluate sparse-probing by itself",
    extras=(("matplotlib", "eval"), ("sklearn", "eval")),
)
