"""`steer evaluate codec-index`: see `evaluation.codec_index`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator, Field

from evaluation import codec_index, figures
from evaluation.accents import synthetic_accents
from evaluation.codebooks import codebooks_of, kilobits_of
from evaluation.codec_index import QS, SS, STEPS, WHOLE, Settings, U
from evaluation.codec_sets import Roles, as_the_paper, divided, other_speech, vectors_of
from evaluation.config import EvaluationError, Names, means, split_names
from evaluation.dataset import Dataset
from evaluation.evaluators.options import ModelConfig, for_codecs
from evaluation.figures import Panel, finish, whiskers
from evaluation.frame import Evaluator
from evaluation.label_sets import label_sets
from evaluation.pooled import pooled_cache
from evaluation.report import Progress, Report, Row, TableRow, line
from hooks.model import Codec

PARTS = (WHOLE, "position", "magnitude")
QUICK: dict[str, Any] = {"q": (2, 10), "s": (0.25, 0.05), "seeds": 1, "nulls": 2, "steps": 1500, "probe_clips": 450}
QUICK_CLIPS, QUICK_MAIN_NULLS = 800, 5
UTTERANCES, QUICK_UTTERANCES = 1000, 300
Counts = Annotated[tuple[Annotated[int, Field(gt=0)], ...], BeforeValidator(split_names)]
Shares = Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], BeforeValidator(split_names)]


class CodecIndexConfig(ModelConfig):
    """How far a label survives in sparse codes of a codec's utterance vectors: delta F1, position and magnitude.

    For SAEs of several sizes (q times the width) and sparsities (a share s of the width is active), by numbers of
    codebooks; beside it what shuffled labels, untrained SAEs, principal components, the length of the vector, duration
    and level give.
    """

    site: str | None = means("decoder_input", "Where in the codec; by default what its decoder gets.")
    label: str = Field(default="label", description="Column of the manifests that is predicted.")
    subset: Names = Field(default=(), description="Subsets with the label, with commas. Default: all.")
    held_out: Names = Field(default=("test",), min_length=1, description="Splits that are held out, with commas.")
    clips: int = Field(default=2000, ge=1, description="Maximum number of clips of a subset and split.")
    codebooks: Counts = Field(default=(), description="Numbers of codebooks, with commas. Default: all of the codec's.")
    q: Counts = Field(
        default=QS, min_length=1, description="Features of an SAE, as multiples of the width, with commas."
    )
    s: Shares = Field(default=SS, min_length=1, description="Active features, as shares of the width, with commas.")
    seeds: int = Field(default=3, ge=1, description="SAEs of each configuration, with other first weights.")
    steps: int = Field(default=STEPS, ge=1, description="Batches an SAE is trained on at most.")
    nulls: int = Field(
        default=codec_index.NULLS, ge=0, description="Fits with shuffled labels; 20 at one configuration."
    )
    probe_clips: int = Field(default=900, ge=10, description="Maximum number of clips that a probe is fitted on.")
    sae_subsets: Names = Field(
        default=(), description="Other subsets whose speech SAEs are trained on too, with commas. Default: all others."
    )
    allow_confounded: bool = Field(
        default=False, description="Report a label that is confounded with speaker or corpus."
    )
    synthetic_accents: bool = Field(
        default=False,
        description="American and British English by the program espeak-ng, in place of a label of --audio.",
    )
    paper: bool = Field(
        default=False, description="The paper's training (for hundreds of thousands of clips) and use of the splits."
    )
    quick: bool = Field(default=False, description="A small run: q 2 and 10, s .25 and .05, one seed.")

    default_model = "starter:wavtokenizer"

    def settled(self) -> CodecIndexConfig:
        """With what `quick` means for the options that have their defaults."""
        if not self.quick:
            return self
        # the command passes its defaults, so whether one was given cannot be seen otherwise
        fields = type(self).model_fields
        small = {name: value for name, value in QUICK.items() if getattr(self, name) == fields[name].default}
        return self.model_copy(update={"clips": min(self.clips, QUICK_CLIPS), **small})

    def settings(self) -> Settings:
        most = QUICK_MAIN_NULLS if self.quick else codec_index.MAIN_NULLS
        main_nulls = 0 if not self.nulls else max(self.nulls, most)
        return Settings(self.q, self.s, self.seeds, self.nulls, main_nulls, self.steps, self.paper, self.seed)


def run(config: CodecIndexConfig, progress: Progress = iter) -> Report:
    config = config.settled()
    codec = config.open()
    if not isinstance(codec, Codec):
        raise EvaluationError(f"--model: {for_codecs(codec)}")
    site = codec.site(config.site or "decoder_input").name
    roles, label, notes, confound = clips_of(config, progress)
    counts: list[int | None] = list(dict.fromkeys(config.codebooks)) or [codebooks_of(codec) or None]
    settings = config.settings()
    rows: list[Row] = []
    densities: dict[str, Any] = {}
    for count in counts:
        kept = pooled_cache(config.out, codec, codebooks=count, quantised=True)
        data = vectors_of(codec, site, roles, count, config.seed, kept, progress)
        found = codec_index.evaluate(data, settings, progress)
        rate = kilobits_of(codec, count) if count else None
        rows += [{"codebooks": count, "kbit/s": rate, **row} for row in found.rows]
        if found.density is not None:
            values = {name: plain(value) for name, value in asdict(found.density).items()}
            densities[str(count or "-")] = values | {"outside of uniform": found.density.leaves(found.density.uniform)}
    kind = "synthetic " if config.synthetic_accents else ""
    title = f"Delta F1 of {kind}{label} in sparse codes of {codec.name}" + (f" ({confound})" if confound else "")
    about = {
        "model": codec.name,
        "site": site,
        "label": label,
        **roles.about(),
        "main configuration": dict(zip("qs", settings.main, strict=True)),
        "density": densities,
        "notes": notes,
    }
    return Report(title, rows, [], about)


def clips_of(config: CodecIndexConfig, progress: Progress) -> tuple[Roles, str, list[str], str]:
    """The clips, the label's name, notes for the user, and what the label is confounded with."""
    dataset, label, subsets = config.dataset.check(), config.label, config.subset
    if config.synthetic_accents:
        if config.out is None:
            raise EvaluationError("synthetic accents are written into the folder of the results: pass out")
        number = QUICK_UTTERANCES if config.quick else UTTERANCES
        made = synthetic_accents(config.out / "accents", number, config.seed, progress)
        labelled, label, subsets = Dataset(made.parent), "accent", ()
    else:
        labelled = dataset
    given = (config.clips, config.allow_confounded)
    sets = label_sets(labelled, label, subsets, config.held_out, *given)
    if config.paper:
        roles = as_the_paper(sets, label_sets(labelled, label, subsets, ("valid",), *given), config.seed)
    else:
        own = set() if config.synthetic_accents else {sound.subset for sound in sets.train}
        others = list(config.sae_subsets) or [name for name in dataset.subsets if name not in own]
        roles = divided(sets, other_speech(dataset, others, config.clips), config.probe_clips, config.seed)
    return roles, label, sets.notes, sets.confound


def plain(value: Any) -> Any:
    return np.asarray(value).round(6).tolist()


# --- what is shown ---


def whole_codes(report: Report) -> list[Row]:
    return [row for row in report.rows if row["on"] in PARTS]


def tables(report: Report) -> list[Report]:
    """What the vectors themselves tell, and the codes."""
    where = ["codebooks", "kbit/s"]
    columns = ["on", "F1", "delta F1", "shuffled", "shuffled, 95 %"]
    first = [{name: row[name] for name in [*where, *columns, "remark"]} for row in report.rows if row["q"] is None]
    rest = ["q", "s", "k", *columns, "explained variance", "dead share", "remark"]
    codes = [{name: row[name] for name in [*where, *rest]} for row in report.rows if row["q"] is not None]
    return [Report(report.title, first, [], report.about), Report("Sparse codes", codes)]


def figure(report: Report) -> Any:
    sizes = sorted({row["q"] for row in whole_codes(report)})
    panels = [over_sparsity(report, q) for q in sizes] + [parts(report)]
    if len({row["codebooks"] for row in report.rows}) > 1:
        panels.append(over_bitrate(report))
    panels += [density(report, name) for name in report.about["density"]]
    return figures.figure(panels, report.title)


def counts_in(report: Report) -> list[Any]:
    return list(dict.fromkeys(row["codebooks"] for row in report.rows))


def over_sparsity(report: Report, q: int) -> Panel:
    """PAPER figs. 2 and 3: delta F1 of z over s; dots are the 95th percentile of shuffled labels."""

    def draw(axes: Any) -> None:
        for index, count in enumerate(counts_in(report)):
            rows = [row for row in whole_codes(report) if (row["on"], row["q"], row["codebooks"]) == (WHOLE, q, count)]
            places, values = [100 * row["s"] for row in rows], [row["delta F1"] for row in rows]
            axes.errorbar(places, [100 * one.value for one in values], yerr=whiskers(values, 100), color=f"C{index}",
                          marker="o", markersize=4, label=f"codebooks: {count or '-'}")  # fmt: skip
            whole = next(row["F1"].value for row in report.rows if (row["on"], row["codebooks"]) == (U, count))
            if rows and rows[0]["shuffled, 95 %"] is not None:
                band = [100 * (row["shuffled, 95 %"] - whole) for row in rows]
                axes.plot(places, band, color=f"C{index}", linestyle=":")
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set(xlabel="s, % of the width", ylabel="delta F1 in points", xscale="log")
        shares = sorted({100 * row["s"] for row in whole_codes(report)})
        axes.set_xticks(shares, [f"{share:g}" for share in shares])
        axes.minorticks_off()
        finish(axes, f"z, q = {q} (dots: shuffled labels)", "both", legend=True)

    return 11, draw


def parts(report: Report) -> Panel:
    """PAPER table 2: position and magnitude at the smallest s."""
    s = min(row["s"] for row in whole_codes(report))
    rows = [row for row in whole_codes(report) if row["s"] == s]
    places = list(dict.fromkeys((row["codebooks"], row["q"]) for row in rows))
    series = {
        part: [
            next(row["delta F1"] for row in rows if (row["codebooks"], row["q"], row["on"]) == (*place, part))
            for place in places
        ]
        for part in PARTS
    }
    names = [f"codebooks: {count or '-'}, q {q}" for count, q in places]
    return figures.bars(f"Parts of the codes, s = {s:g}", "delta F1 in points", names, series)


def over_bitrate(report: Report) -> Panel:
    """PAPER table 3: delta F1 of z over kbit/s, at the smallest q and s."""
    main = report.about["main configuration"]
    rows = [row for row in whole_codes(report) if (row["on"], row["q"], row["s"]) == (WHOLE, main["q"], main["s"])]

    def draw(axes: Any) -> None:
        places = [row["codebooks"] if row["kbit/s"] is None else row["kbit/s"] for row in rows]
        values = [row["delta F1"] for row in rows]
        axes.errorbar(places, [100 * one.value for one in values], yerr=whiskers(values, 100), marker="o")
        axes.set(xlabel="kbit/s" if rows[0]["kbit/s"] else "codebooks", ylabel="delta F1 in points")
        finish(axes, f"Bit rate, z, q = {main['q']}, s = {main['s']:g}", "both", legend=False)

    return 11, draw


def density(report: Report, name: str) -> Panel:
    """PAPER fig. 4, with bands."""
    values = report.about["density"][name]

    def draw(axes: Any) -> None:
        share_G = values["share_G"]
        axes.bar(range(1, len(share_G) + 1), [100 * share for share in share_G], color=figures.OTHERS)
        for band, style in (("reordered", "--"), ("uniform", ":")):
            for edge in values[band]:
                axes.axhline(100 * edge, color="black", linewidth=0.9, linestyle=style)
        axes.set(xlabel="group of features", ylabel="% of all activations")
        finish(axes, f"Density, codebooks: {name} (dashes: other order; dots: uniform)", "y", legend=False)

    return 11, draw


def headline(report: Report) -> Sequence[TableRow]:
    main = report.about["main configuration"]
    found = []
    for count in counts_in(report):
        rows = {
            row["on"]: row
            for row in report.rows
            if row["codebooks"] == count and row["q"] in (None, main["q"]) and row["s"] in (None, main["s"])
        }
        name = f"delta F1 of z, codebooks: {count or '-'}, q {main['q']}, s {main['s']:g}"
        found.append(
            line(
                name,
                rows[WHOLE]["delta F1"],
                position=rows["position"]["delta F1"],
                magnitude=rows["magnitude"]["delta F1"],
                F1_of_u=rows[U]["F1"],
            )
        )
    return found


CODEC_INDEX = Evaluator(
    name="codec-index",
    config=CodecIndexConfig,
    run=run,
    figure=figure,
    headline=headline,
    tables=tables,
    intervals=False,
    suits=for_codecs,
    plan=lambda shared: "it trains SAEs of its own and needs a label; run steer evaluate codec-index by itself",
    extras=(("matplotlib", "eval"), ("sklearn", "eval")),
)
