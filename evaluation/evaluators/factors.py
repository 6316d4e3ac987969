"""`steer evaluate factors`: see `evaluation.factors`."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from evaluation import figures
from evaluation.concept_sets import LabelError
from evaluation.config import Names
from evaluation.confounds import GROUP
from evaluation.dataset import LabelledSound, is_impulse_response
from evaluation.evaluators.options import SweepConfig
from evaluation.factor_sets import BASIC, factors_of
from evaluation.factors import DURATION, SHUFFLED, TOP, evaluate
from evaluation.figures import Panel, finish, whiskers
from evaluation.frame import Evaluator
from evaluation.pooled import pooled_activations, pooled_cache, pooled_crops
from evaluation.pooled_saes import (
    DENSE,
    PCA,
    QUICK_SPARSITIES,
    QUICK_STEPS,
    RANDOM,
    ROTATED,
    SAE_NAME,
    SECOND,
    STEPS,
    check_sparsities,
    divided_vectors,
    train_sweep,
)
from evaluation.report import Interval, Progress, Report, Row, TableRow, line
from hooks.clip import as_clip
from hooks.files import whole_file
from hooks.model import AudioModel

FEWEST = 50
"""Clips."""


class FactorsConfig(SweepConfig):
    """How many dimensions of a layer, or of sparse codes of it, predict voice attributes.

    Held-out R2, completeness and effective number of dimensions of factors by Lasso, on dense utterance vectors and on
    SAEs of rising sparsity, compared with untrained SAEs, principal components, another seed, duration, and shuffled
    factors.
    """

    subsets: Names = Field(default=(), description="Which subsets, with commas. Default: all.")
    split: Names = Field(default=("train", "valid", "test"), description="Splits of the clips, with commas.")
    clips: int = Field(default=400, ge=1, description="Maximum number of clips of a subset and split.")
    factors: str = Field(
        default=BASIC,
        description="basic: 24 of level, spectrum, pitch and duration; egemaps: 88 by openSMILE (extra egemaps, no "
        "commercial use); or a CSV file with the column path and columns of numbers.",
    )
    paper: bool = Field(default=False, description="Columns by the paper's own definitions, which are inflated.")
    quick: bool = Field(default=False, description="A small run: SAEs of 90 and 99 % alone, trained briefly.")

    def open(self) -> AudioModel:
        """The model; the clips are checked first."""
        self.sounds()
        return super().open()

    def sounds(self) -> list[LabelledSound]:
        """The clips whose factors are predicted. Raises LabelError where they are too few."""
        found = self.sounds_of(self.split, self.subsets)
        if len(found) < FEWEST:
            raise LabelError(f"factors are predicted for {FEWEST} clips at least, and there are {len(found)}")
        return found

    def sounds_of(self, splits: Names, subsets: Names) -> list[LabelledSound]:
        """Clips of these splits, each once; room impulse responses are none."""
        dataset = self.dataset.check()
        there = [split for split in splits if dataset.has_split(split)] or list(splits)
        found = {
            sound.name: sound
            for split in there
            for sound in dataset.sounds(subsets or None, split, self.clips, ("label", GROUP))
        }
        return [sound for sound in found.values() if not is_impulse_response(sound.labels)]

    def sites_of(self, model: AudioModel) -> list[str]:
        """Without a name the first and the last layer."""
        names = super().sites_of(model)
        if self.site:
            return names
        layers = [name for name in names if name.startswith("encoder.") and name.rpartition(".")[2].isdecimal()]
        return list(dict.fromkeys([(layers or names)[0], (layers or names)[-1]]))


def run(config: FactorsConfig, progress: Progress = iter) -> Report:
    model = config.open()
    sites = config.sites_of(model)
    sparsities = QUICK_SPARSITIES if config.quick else config.sparsity
    check_sparsities(model, sites, sparsities, config.dictionary)
    sounds = config.sounds()
    factors = factors_of(sounds, config.factors, config.out, progress)
    kept = pooled_cache(config.out, model)

    def whole(some: list[LabelledSound]) -> dict[str, np.ndarray]:
        return pooled_activations(model, some, sites, padding=config.padding, kept=kept, progress=progress)

    crops = min(config.crops, 2) if config.quick else config.crops

    def stretches(some: list[LabelledSound]) -> dict[str, np.ndarray]:
        return pooled_crops(model, some, sites, crops, seed=config.seed, kept=kept, progress=progress)

    vectors = divided_vectors(
        config.sounds_of(("train",), config.sae_subsets or config.subsets),
        whole,
        stretches if crops else None,
        config.seed,
    )
    swept = {
        site: train_sweep(
            {site: vectors[site][0]},
            {site: vectors[site][1]},
            sparsities,
            width=config.dictionary,
            seeds=1 if config.quick else config.seeds,
            seed=config.seed,
            steps=QUICK_STEPS if config.quick else STEPS,
        )[site]
        for site in progress(sites)
    }
    report = evaluate(
        model.name,
        whole(sounds),
        {site: train for site, (train, _) in vectors.items()},
        swept,
        sounds,
        factors,
        np.array([as_clip(sound.source).seconds for sound in sounds]),
        own_alpha=not config.quick,
        paper=config.paper,
        seed=config.seed,
        progress=progress,
    )
    if config.out is not None:
        write_csv(config.out / "factors.csv", report.clips)
    return report


def write_csv(path: Path, rows: list[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def tables(report: Report) -> list[Report]:
    """The table, and how many of the ten best are of which family."""
    rows: list[Row] = [
        {"site": site, **{name: f"{mean:.2g} ± {deviation:.2g}" for name, (mean, deviation) in counts.items()}}
        for site, counts in report.about["families"].items()
    ]
    return [report, Report(f"Number of the {TOP} best-predicted factors by family, over sparsities", rows)]


STYLES = {SAE_NAME: ("-", "o"), SECOND: ("-", "."), RANDOM: ("--", "s"), PCA: (":", "^"), ROTATED: (":", "v")}


def figure(report: Report) -> Any:
    """R2 and effective dimensions over sparsity, a panel each for a site; completeness over entropy; families."""
    sites = list(report.about["families"])
    panels: list[Panel] = []
    for site in sites:
        panels += [
            over_sparsity(report, site, "R2", f"{site}: held-out R2 of the ten"),
            over_sparsity(report, site, "dimensions", f"{site}: effective dimensions"),
            over_sparsity(report, site, "completeness", f"{site}: completeness"),
            over_entropy(report, site),
        ]
    return figures.figure([*panels, families(report)], report.title)


def over_sparsity(report: Report, site: str, column: str, title: str) -> Panel:
    rows = [row for row in report.rows if row["site"] == site and row[column] is not None]

    def draw(axes: Any) -> None:
        for number, (name, (dashes, marker)) in enumerate(STYLES.items()):
            some = [row for row in rows if row["vectors"] == name]
            if some:
                places = [float(row["sparsity"].removesuffix("%")) for row in some]
                values: list[Interval] = [row[column] for row in some]
                axes.errorbar(places, [one.value for one in values], yerr=whiskers(values, 1), color=f"C{number}",
                              linestyle=dashes, marker=marker, markersize=4, elinewidth=1, label=name)  # fmt: skip
        for name, colour in ((DENSE, "black"), (DURATION, "0.6"), (SHUFFLED, "0.8")):
            if value := next((row[column] for row in rows if row["vectors"] == name), None):
                axes.axhline(value.value, color=colour, linewidth=1, linestyle="--", label=name)
        axes.set(xlabel="sparsity in %")
        if rows:
            axes.legend(frameon=False, fontsize="x-small", ncols=2)
        finish(axes, title, "y", legend=False)

    return 12, draw


def over_entropy(report: Report, site: str) -> Panel:
    found = report.about["entropy and completeness"][site]
    rows = [
        row
        for row in report.clips
        if row["site"] == site and row["vectors"] == SAE_NAME and row["sparsity"] == found["sparsity"]
        and row["entropy"] is not None and row["completeness"] is not None
    ]  # fmt: skip

    def draw(axes: Any) -> None:
        for number, family in enumerate(dict.fromkeys(row["family"] for row in rows)):
            some = [row for row in rows if row["family"] == family]
            places, heights = ([row[name] for row in some] for name in ("entropy", "completeness"))
            axes.scatter(places, heights, s=14, color=f"C{number % 10}", label=family)
        axes.set(xlabel="entropy of the factor in bits", ylabel="completeness")
        if rows:
            axes.legend(frameon=False, fontsize="x-small", ncols=2)
        value = (
            "-" if found["correlation"] is None else f"{found['correlation']:.2f} (noise up to {found['noise']:.2f})"
        )
        finish(axes, f"{site}, {found['sparsity']:g} %: rank correlation {value}", "both", legend=False)

    return 12, draw


def families(report: Report) -> Panel:
    counts = report.about["families"]
    names = list(next(iter(counts.values())))
    thick = 0.8 / len(counts)

    def draw(axes: Any) -> None:
        for index, (site, values) in enumerate(counts.items()):
            places = [place + index * thick for place in range(len(names))]
            means, deviations = zip(*(values[name] for name in names), strict=True)
            axes.barh(places, means, 0.95 * thick, xerr=deviations, label=site, error_kw={"elinewidth": 1})
        axes.set_yticks([place + thick * (len(counts) - 1) / 2 for place in range(len(names))], names)
        axes.invert_yaxis()
        axes.set_xlabel(f"number of the {TOP} best-predicted factors, mean and deviation over sparsities")
        finish(axes, "Families", "x", legend=len(counts) > 1)

    return max(8, len(names) * len(counts)), draw


def headline(report: Report) -> list[TableRow]:
    """Of each site the SAE whose sparsity is nearest to the paper's."""
    found = []
    for site, found in report.about["entropy and completeness"].items():
        rows = {row["vectors"]: row for row in report.rows if row["site"] == site and row["sparsity"] is None}
        row = next(
            row
            for row in report.rows
            if row["site"] == site and row["vectors"] == SAE_NAME and row["sparsity"] == f"{found['sparsity']:g} %"
        )
        name = f"effective dimensions of the ten best factors at {site}, {row['sparsity']} sparsity"
        found.append(line(name, row["dimensions"], dense=rows[DENSE]["dimensions"], R2=row["R2"]))
    return found


FACTORS = Evaluator(
    name="factors",
    config=FactorsConfig,
    run=run,
    figure=figure,
    headline=headline,
    tables=tables,
    intervals=False,
    plan=lambda shared: "it is about the factors of a model's layers; run steer evaluate factors by itself",
    extras=(("matplotlib", "eval"), ("sklearn", "eval")),
)
