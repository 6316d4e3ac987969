"""`steer evaluate sae-grid`: see `evaluation.sae_grid`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator, Field

from evaluation import figures, sae_grid
from evaluation.config import Names, means, split_names
from evaluation.dataset import IMPULSE_RESPONSE
from evaluation.evaluators.options import ModelConfig
from evaluation.figures import Panel, finish
from evaluation.frame import Evaluator
from evaluation.report import Progress, Report, Row, TableRow, line
from evaluation.sae_grid import DENSE, MAJORITY, SAE_ROW, Training
from evaluation.site_frames import MEASURES, labelled_frames
from steer.probes import save_probes
from steer.recipe import DEFAULT_MODEL

PAPER_SIZES = (2048, 4096, 8192, 12288, 16384)
PAPER_PENALTIES = (0.005, 0.01, 0.05, 0.1, 0.15)
TIMES = (4, 8, 16)
"""Sizes where none are named, as multiples of the site's width."""
PER_CLIP = 50
"""Frames of a clip that probes are trained on and asked about."""
QUICK = {"clips": 20, "steps": 600, "frames": 4000, "batch": 2048}


def searched_or_numbers(value: Any) -> Any:
    return () if value == "auto" else split_names(value)


Sizes = Annotated[tuple[Annotated[int, Field(gt=0)], ...], BeforeValidator(split_names)]
Penalties = Annotated[tuple[float, ...], BeforeValidator(searched_or_numbers)]


class SaeGridConfig(ModelConfig):
    """SAEs of several sizes and L1 penalties at a site, and what linear probes read from each over its sparsity.

    Probes read pitch (66 notes), loudness and brightness (20 steps each) of frames, beside the majority class, a probe
    on the activation itself, random SAEs and shuffled labels. The SAE that is best by split valid and its probes are
    kept in OUT/best.
    """

    subsets: Names = Field(default=(), description="Which subsets, with commas. Default: all.")
    hidden: Sizes = Field(
        default=(), description="Sizes of the SAEs, with commas. Default: 4, 8 and 16 times the width."
    )
    lambdas: Penalties = Field(
        default=(),
        description="Weights of the L1 penalty, with commas; or auto: five that spread the sparsity. Default: auto.",
    )
    clips: int = Field(default=100, ge=1, description="Maximum number of clips of a subset and split.")
    steps: int = Field(default=3000, ge=1, description="Batches an SAE is trained on.")
    batch: int = Field(default=4096, ge=1, description="Frames a batch.")
    frames: int = Field(default=10_000, ge=100, description="Maximum number of frames that probes are fitted on.")
    nulls: int = Field(default=1, ge=0, description="Fits with shuffled labels for each probe.")
    rms_norm: bool = Field(default=True, description="Divide features by their root mean square, as the paper does.")
    paper: bool = Field(
        default=False, description="The paper's sizes and penalties, activations not scaled: only to compare with it."
    )
    quick: bool = Field(default=False, description="A small grid of 2 sizes and 3 penalties, in minutes.")

    site: str | None = means("latent", "Where in the model: a site, see `steer sites`.")

    default_model = DEFAULT_MODEL
    divide = True

    def settled(self) -> SaeGridConfig:
        """With what `quick` and `paper` mean."""
        values: dict[str, Any] = {}
        if self.quick:
            values |= {name: min(getattr(self, name), most) for name, most in QUICK.items()}
        if self.paper:
            values |= {"hidden": self.hidden or PAPER_SIZES, "lambdas": self.lambdas or PAPER_PENALTIES}
        return self.model_copy(update=values)


def run(config: SaeGridConfig, progress: Progress = iter) -> Report:
    config = config.settled()
    model = config.open()
    site = model.site(config.site or "latent").name
    sets = config.dataset.check()
    wanted = config.clips, ("label", "speaker", "group"), [IMPULSE_RESPONSE]
    train, test = (sets.sounds(config.subsets or None, split, *wanted) for split in ("train", "test"))
    # not each subset has to have clips of this split
    valid = sets.sounds(None, "valid", *wanted) if sets.has_split("valid") else []
    valid = [sound for sound in valid if not config.subsets or sound.subset in config.subsets]
    train_ND, probed = labelled_frames(model, site, train, PER_CLIP, progress)
    _, asked = labelled_frames(model, site, test, PER_CLIP, progress)
    choice = labelled_frames(model, site, valid, PER_CLIP, progress)[1] if valid else None
    width = train_ND.shape[1]
    times = TIMES[:2] if config.quick else TIMES
    grid = sae_grid.evaluate(
        train_ND,
        sae_grid.fewer(probed, config.frames),
        asked,
        sizes=config.hidden or [factor * width for factor in times],
        penalties=config.lambdas,
        valid=choice,
        count=3 if config.quick else 5,
        training=Training(
            config.steps, config.batch, rms_norm=config.rms_norm, rescale=not config.paper, seed=config.seed
        ),
        nulls=config.nulls,
        progress=progress,
    )
    grid.best.info.model, grid.best.info.site = model.name, site
    grid.best.info.sample_rate, grid.best.info.frame_rate = model.sample_rate, model.site(site).frame_rate
    if config.out is not None:
        grid.best.save(config.out / "best")
        save_probes(grid.probes, config.out / "best" / "probes.safetensors")
    grid.report.title = f"Probes on SAEs of {model.name}, site {site}"
    grid.report.about = {"model": model.name, "site": site, "width": width, **grid.report.about}
    return grid.report


def attributes_of(report: Report) -> list[str]:
    return [name for name in MEASURES if name in report.rows[0]]


def tables(report: Report) -> list[Report]:
    """The SAEs, and a table for each attribute."""
    where = ["probe on", "features", "lambda", "sparsity"]
    shown = [Report(f"{report.title}: the SAEs", [
        {name: row[name] for name in [*where, "L0", "explained variance", "dead share"]}
        for row in report.rows if row["features"]
    ])]  # fmt: skip
    for name in attributes_of(report):
        columns = [*where, name, f"{name}, less x", f"{name}, shuffled"]
        shown.append(
            Report(f"{report.title}: accuracy, {name}", [{one: row[one] for one in columns} for row in report.rows])
        )
    return shown


def figure(report: Report) -> Any:
    return figures.figure(
        [over_sparsity(report), explained(report), *(heat(report, name) for name in attributes_of(report))],
        report.title,
    )


def saes_in(report: Report, size: int | None = None) -> list[Row]:
    rows = [row for row in report.rows if row["probe on"] == SAE_ROW and size in (None, row["features"])]
    return sorted(rows, key=lambda row: row["sparsity"])


def sizes_in(report: Report) -> list[int]:
    return sorted({row["features"] for row in saes_in(report)})


def over_sparsity(report: Report) -> Panel:
    """Accuracy over the share of zeros, a colour an attribute and a marker a size; lines across are x and majority."""

    def draw(axes: Any) -> None:
        rest = {row["probe on"]: row for row in report.rows if row["probe on"] in (DENSE, MAJORITY)}
        for name, colour in zip(attributes_of(report), figures.SERIES, strict=False):
            for size, marker in zip(sizes_in(report), "os^Dv", strict=False):
                rows = saes_in(report, size)
                values = [row[name] for row in rows]
                axes.errorbar(
                    [row["sparsity"] for row in rows], [100 * one.value for one in values],
                    yerr=figures.whiskers(values, 100), color=colour, marker=marker, markersize=4, linewidth=1,
                    label=name if size == sizes_in(report)[0] else None,
                )  # fmt: skip
            axes.axhline(100 * rest[DENSE][name].value, color=colour, linestyle="--", linewidth=0.9)
            axes.axhline(100 * rest[MAJORITY][name].value, color=colour, linestyle=":", linewidth=0.9)
        axes.set(xlabel="sparsity: share of features that are 0", ylabel="accuracy in %")
        finish(axes, "Accuracy (dashes: x; dots: majority class)", "both", legend=True)

    return 12, draw


def explained(report: Report) -> Panel:
    def draw(axes: Any) -> None:
        for size in sizes_in(report):
            rows = saes_in(report, size)
            axes.plot(
                [row["sparsity"] for row in rows], [row["explained variance"] for row in rows], "o-", label=str(size)
            )
        axes.set(xlabel="sparsity: share of features that are 0", ylabel="explained variance")
        finish(axes, "Reconstruction, by number of features", "both", legend=True)

    return 12, draw


def heat(report: Report, name: str) -> Panel:
    """The accuracy of an attribute over size and penalty."""

    def draw(axes: Any) -> None:
        sizes = sizes_in(report)
        penalties = sorted({row["lambda"] for row in saes_in(report)})
        value_of = {(row["features"], row["lambda"]): row[name].value for row in saes_in(report)}
        shown = 100 * np.array([[value_of[size, penalty] for penalty in penalties] for size in sizes])
        axes.imshow(shown, aspect="auto", origin="lower", cmap="viridis")
        for (height, column), value in np.ndenumerate(shown):
            axes.text(column, height, f"{value:.0f}", ha="center", va="center", color="white", fontsize="small")
        axes.set_xticks(range(len(penalties)), [f"{one:g}" for one in penalties])
        axes.set_yticks(range(len(sizes)), [str(size) for size in sizes])
        axes.set(xlabel="lambda", ylabel="features", title=f"Accuracy in %: {name}")

    return 8, draw


def headline(report: Report) -> Sequence[TableRow]:
    kept = report.about["kept"]
    row = next(row for row in saes_in(report, kept["features"]) if row["lambda"] == kept["lambda"])
    beside = {one["probe on"]: one for one in report.rows if one["probe on"] in (DENSE, MAJORITY)}
    return [
        line(
            f"{name} at sparsity {row['sparsity']:.3f}",
            row[name],
            x=beside[DENSE][name],
            majority=beside[MAJORITY][name],
        )
        for name in attributes_of(report)
    ]


SAE_GRID = Evaluator(
    name="sae-grid",
    config=SaeGridConfig,
    run=run,
    figure=figure,
    headline=headline,
    tables=tables,
    intervals=False,
    plan=lambda shared: "it trains SAEs of its own; run steer evaluate sae-grid by itself",
    extras=(("matplotlib", "eval"), ("sklearn", "eval"), ("torchcrepe", "eval")),
)
