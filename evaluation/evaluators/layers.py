"""`steer evaluate layers`: see `evaluation.layers`."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from evaluation import figures
from evaluation.config import Names
from evaluation.evaluators.options import SweepConfig
from evaluation.figures import Panel, finish, whiskers
from evaluation.frame import Evaluator
from evaluation.label_sets import LabelSets, label_sets
from evaluation.layers import BEST, Sweep, evaluate
from evaluation.pooled import pooled_cache
from evaluation.pooled_saes import (
    DENSE,
    PCA,
    QUICK_SPARSITIES,
    QUICK_STEPS,
    RANDOM,
    SAE_NAME,
    STEPS,
    check_sparsities,
)
from evaluation.report import Progress, Report, Row, TableRow, line
from hooks import AudioModel


class LayersConfig(SweepConfig):
    """How well each layer of a model predicts a label, and what sparse codes of its utterance vectors cost.

    A linear probe on each layer's mean over a clip; at some layers SAEs of rising sparsity, their error and the probe's
    accuracy, compared with an untrained SAE, principal components and shuffled labels.
    """

    subsets: Names = Field(default=(), description="Which subsets, with commas. Default: all.")
    label: str = Field(default="label", description="Column of the manifests that is predicted.")
    held_out: Names = Field(default=("test",), min_length=1, description="Splits that are held out, with commas.")
    clips: int = Field(default=2000, ge=1, description="Maximum number of clips of a subset and split.")
    sweep: Names = Field(
        default=(BEST,),
        description="Sites at which SAEs are trained, with commas; none; or best: the best by cross-validation on the "
        "training clips, and the last.",
    )
    nulls: int = Field(default=20, ge=0, description="How often labels are shuffled.")
    allow_confounded: bool = Field(
        default=False, description="Report a label that is confounded with speaker or corpus."
    )
    paper: bool = Field(default=False, description="The settings of the paper on singing, to compare with its numbers.")
    quick: bool = Field(default=False, description="A small run: SAEs of 90 and 99 % alone, trained briefly.")

    def open(self) -> AudioModel:
        """The model; the label is checked first."""
        self.sets()
        return super().open()

    def sets(self) -> LabelSets:
        return label_sets(self.dataset, self.label, self.subsets, self.held_out, self.clips, self.allow_confounded)


def run(config: LayersConfig, progress: Progress = iter) -> Report:
    model = config.open()
    sites = config.sites_of(model)
    sounds = config.dataset.sounds(config.sae_subsets, "train", config.clips) if config.sae_subsets else ()
    named = [] if set(config.sweep) <= {BEST, "none"} else [model.site(name).name for name in config.sweep]
    small = config.quick
    sweep = Sweep(
        named,
        QUICK_SPARSITIES if small else config.sparsity,
        config.dictionary,
        min(config.crops, 2) if small else config.crops,
        1 if small else config.seeds,
        QUICK_STEPS if small else STEPS,
        sounds,
    )
    check_sparsities(model, named or sites, sweep.sparsities, config.dictionary)
    return evaluate(
        model,
        config.sets(),
        list(dict.fromkeys([*sites, *named])),
        None if config.sweep == ("none",) else sweep,
        nulls=min(config.nulls, 5) if small else config.nulls,
        padding=config.padding,
        paper=config.paper,
        seed=config.seed,
        kept=pooled_cache(config.out, model),
        progress=progress,
    )


def tables(report: Report) -> list[Report]:
    """The layers, and the sweep."""
    parts = {
        report.title: (dense_rows(report), ("site", "accuracy", "shuffled", "shuffled, 95 %", "remark")),
        "Sparse codes": (
            [row for row in report.rows if row["vectors"] != DENSE],
            ("site", "vectors", "sparsity", "active", "accuracy", "to dense", "error / variance", "dead", "remark"),
        ),
    }
    return [
        Report(title, [{name: row[name] for name in names} for row in rows], [], report.about if first else {})
        for first, (title, (rows, names)) in zip((True, False), parts.items(), strict=True)
        if rows
    ]


def dense_rows(report: Report) -> list[Row]:
    return [row for row in report.rows if row["vectors"] == DENSE]


def figure(report: Report) -> Any:
    """Accuracy and error over sparsity at each layer of the sweep, and accuracy over layers."""
    sites = list(dict.fromkeys(row["site"] for row in report.rows if row["vectors"] != DENSE))
    panels: list[Panel] = []
    for site in sites:
        panels += [
            over_sparsity(report, site, "accuracy", f"{site}: accuracy", "% of the clips", 100),
            over_sparsity(report, site, "error / variance", f"{site}: error", "squared error / variance", 1),
        ]
    return figures.figure([*panels, by_layer(report)], report.title)


def by_layer(report: Report) -> Panel:
    rows = dense_rows(report)

    def draw(axes: Any) -> None:
        values = [row["accuracy"] for row in rows]
        places, heights = range(len(rows)), [100 * value.value for value in values]
        axes.errorbar(places, heights, yerr=whiskers(values, 100), color="C0", marker="o", markersize=4, elinewidth=1)
        if rows[0]["shuffled"] is not None:
            null = [100 * row["shuffled, 95 %"] for row in rows]
            axes.plot(places, null, color="black", linestyle=":", label="shuffled labels, 95th percentile")
            axes.legend(frameon=False, fontsize="small")
        axes.set_xticks(places, [row["site"] for row in rows], rotation=0 if len(rows) < 8 else 45)
        axes.set(ylabel="% of the clips", ylim=(0, 100))
        finish(axes, "Accuracy by layer", "y", legend=False)

    return 12, draw


def over_sparsity(report: Report, site: str, column: str, title: str, unit: str, scale: float) -> Panel:
    rows = [row for row in report.rows if row["site"] == site]
    styles = {SAE_NAME: ("C0", "-", "o"), RANDOM: ("C1", "--", "s"), PCA: ("C2", "--", "^")}

    def draw(axes: Any) -> None:
        for name, (colour, dashes, marker) in styles.items():
            known = [row for row in rows if row["vectors"] == name and row[column] is not None]
            if not known:
                continue
            places = [float(row["sparsity"].removesuffix("%")) for row in known]
            values = [row[column] for row in known]
            heights = [scale * value.value for value in values]
            axes.errorbar(places, heights, yerr=whiskers(values, scale), color=colour, linestyle=dashes, marker=marker,
                          markersize=4, elinewidth=1, label=name)  # fmt: skip
        dense = next(row for row in rows if row["vectors"] == DENSE)
        if dense[column] is not None:
            axes.axhline(scale * dense[column].value, color="black", linewidth=1, label=DENSE)
        axes.set(xlabel="sparsity in %", ylabel=unit)
        axes.legend(frameon=False, fontsize="small")
        finish(axes, title, "y", legend=False)

    return 12, draw


def headline(report: Report) -> list[TableRow]:
    best = max(dense_rows(report), key=lambda row: report.about["accuracy by cross-validation"][row["site"]])
    return [line(f"accuracy at {best['site']}, {report.about['label']}", best["accuracy"], shuffled=best["shuffled"])]


LAYERS = Evaluator(
    name="layers",
    config=LayersConfig,
    run=run,
    figure=figure,
    headline=headline,
    tables=tables,
    intervals=False,
    plan=lambda shared: "it is about one label of a model's layers; run steer evaluate layers by itself",
    extras=(("matplotlib", "eval"), ("sklearn", "eval")),
)
