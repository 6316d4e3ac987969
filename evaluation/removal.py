"""`steer evaluate ablation`: how few features have to go until a concept cannot be read from the running model.

The SAE's features are ranked by how far they move the mean activation of the training clips with the concept from that
of those without (`contribution`): a feature can tell a concept perfectly and carry next to nothing of it. The first 1,
2, 4, ... of them are ablated while the model runs, and each time a FRESH probe is trained on what a LATER site gives
then, each clip's mean over the frames that hold sound. What is needed is the smallest of these shares of the features
at which the probe is at chance (probe and chance are defined in `evaluation.probing`); the number tried before it was
not enough, so it is an upper bound. All shares are of the features that fire on any training clip at all: a dictionary
that is half dead gains nothing by it. What the SAE cannot explain is lost with them (`mode="reconstruct"`), and so is
what the sound left in the padding of a recogniser's window (`Blank`): a probe of all channels finds there what no
feature of the sound holds.

That a probe is at chance does not say that nothing is left: `left` is what the probe of the concept itself still knows
there, in per cent of what it knew without an edit, chance taken off (`information`).

Controls: the same numbers of such features in random order, several draws; and all other concepts, whose probes are
trained afresh on the same ablated run: what they keep is what they know, summed over all of them, in per cent of what
they knew without an edit, chance taken off both.

AudioSAE (arXiv 2602.05027, sections 3.3.3 and 4.5, appendix E) ranked by the Fisher score (`rank="fisher"`), that is by
how well a feature tells the concept. Its 19-27 % are one spoken vowel, read from the SAE's features that are left: 1152
of 6144 erase it, and beyond 27 % other vowels fade. Here the model runs on and may make up for what is gone.

Cost: clips x (1 + (concepts + draws) x counts / 16) runs of the model, up to 16 sounds wide behind the SAE's site (what
else, and the memory: `ablated_runs`). One concept's probes are in memory at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch

from evaluation.ablation import ConceptError, ablated_runs, decoder_norms, later_site, plain_run
from evaluation.concepts import chosen_of, concepts_of, contribution, fisher_score, log_counts, too_few
from evaluation.dataset import LabelledSound
from evaluation.probing import ROUNDS, Answers, Curve, ask, information, interval, resampled
from evaluation.report import Interval, Needed, Progress, Report, Row, Share
from hooks.errors import require
from steer.delta import Mode
from steer.steered import SteeredModel

RANKED, RANDOM = "#d1495b", "#5b6770"
Rank = Literal["contribution", "fisher"]
Kept = tuple[np.ndarray, np.ndarray]
"""Balanced accuracies [X] of a concept's probe, with features ablated and without."""


@torch.no_grad()
def evaluate(
    steered: SteeredModel,
    train: Sequence[LabelledSound],
    held_out: Sequence[LabelledSound],
    concepts: Sequence[str] = (),
    *,
    site: str | None = None,
    later: str | None = None,
    counts: Sequence[int] | None = None,
    points: int = 12,
    draws: int = 3,
    rank: Rank = "contribution",
    mode: Mode = "reconstruct",
    seed: int = 0,
    progress: Progress = iter,
) -> Report:
    """Remove concepts one by one: those named (`sound=rain`, or `sound` for all of that kind), or all that there are.

    `counts` are the numbers of features to try, or `points` of them spread over all. In the report a row for each
    concept and one for their mean; `clips` holds all curves, `about` the features that were enough and what each other
    concept kept. Intervals: `evaluation.probing`. A concept that cannot be read without an edit needs nothing, is
    not in the mean and does not count among the others.

    Raises:
        ConceptError: too few clips of a concept, an unknown one, no later site, an SAE that does not explain the site.
        AudioFileError: a clip that cannot be read.
        MissingExtraError: scikit-learn is not installed.
    """
    if site is None and len(steered.saes) > 1:
        raise ConceptError(f"this model has SAEs at {', '.join(steered.saes)}: choose one of these sites")
    site = site or next(iter(steered.saes))
    if site not in steered.saes:
        raise ConceptError(f"there is no SAE at {site!r}; there are SAEs at {', '.join(steered.saes)}")
    clips = [*train, *held_out]
    train_N = np.arange(len(clips)) < len(train)
    known = concepts_of(train, held_out)
    chosen = chosen_of(known, concepts, train_N)
    known = {name: y_N for name, y_N in known.items() if name in chosen or not too_few(y_N, train_N)}

    reading = later_site(steered, site, steered.model.prepare(clips[0].source), later)
    f_NF, x_ND, explained = plain_run(steered, site, reading, clips, progress)
    live = live_in(f_NF, train_N)
    counts = checked(counts, len(live)) if counts else log_counts(len(live), points)
    norm_F = decoder_norms(steered, site, live, f_NF.shape[1])

    def score(f_NL: np.ndarray, is_N: np.ndarray) -> np.ndarray:
        return contribution(f_NL, is_N, norm_F) if rank == "contribution" else fisher_score(f_NL, is_N)

    orders = orders_of(f_NF, live, known, chosen, train_N, score, draws, seed)
    runs = ablated_runs(steered, site, reading, clips, orders, counts, progress, mode)
    speakers = [clip.speaker for clip in clips]
    results = removed(x_ND, runs, orders, counts, len(live), known, chosen, train_N, speakers, seed)
    about = {
        "model": steered.model.name,
        "site": site,
        "read at": reading.name,
        "clips to train on": len(train),
        "clips held out": len(held_out),
        "features": f_NF.shape[1],
        "features that fire": len(live),
        "explained variance": explained,
        "ranked by": rank,
        "mode": mode,
        "random draws": draws,
    }
    return report_of(f"Features ablated at {site} until a concept cannot be read at {reading.name}", results, about)


def live_in(f_NF: np.ndarray, train_N: np.ndarray) -> np.ndarray:
    """Features that fire on a clip to train on. Raises ConceptError if there are none."""
    live = np.flatnonzero((f_NF[train_N] != 0).any(0))
    if not len(live):
        raise ConceptError("no feature of the SAE fires on a clip to train on")
    return live


def orders_of(
    f_NF: np.ndarray,
    live: np.ndarray,
    known: Mapping[str, np.ndarray],
    chosen: Sequence[str],
    train_N: np.ndarray,
    score: Callable[[np.ndarray, np.ndarray], np.ndarray],
    draws: int,
    seed: int,
) -> list[np.ndarray]:
    """The live features by falling score for each chosen concept, then `draws` random orders of them. `score` takes the
    live features of the clips to train on and which of those have the concept."""
    orders = []
    for name in chosen:
        fit_N = train_N & (known[name] >= 0)
        orders.append(live[np.argsort(-score(f_NF[fit_N][:, live], known[name][fit_N] == 1), kind="stable")])
    generator = np.random.default_rng(seed)
    return [*orders, *(generator.permutation(live) for _ in range(draws))]


def removed(
    x_ND: np.ndarray,
    runs: Iterable[np.ndarray | Sequence[np.ndarray]],
    orders: Sequence[np.ndarray],
    counts: Sequence[int],
    live: int,
    known: Mapping[str, np.ndarray],
    chosen: Sequence[str],
    train_N: np.ndarray,
    speakers: Sequence[str],
    seed: int,
) -> list[Result]:
    """What was measured of each chosen concept, by fresh probes: of `x_ND`, and of the `runs`, which hold for each
    order what is read [K, N, D] without the first `counts[k]` features; behind those of the concepts come random ones.
    """
    resampling = resampled(speakers, ROUNDS, seed)
    weights = {name: resampling.of(name) for name in known}
    plain = {name: ask(x_ND, y_N, train_N) for name, y_N in known.items()}

    def curve(name: str, run_KND: np.ndarray | Sequence[np.ndarray]) -> Curve:
        return Curve.of([0, *counts], [plain[name], *(ask(x, known[name], train_N) for x in run_KND)], weights[name])

    def kept(name: str, run_ND: np.ndarray) -> dict[str, Kept]:
        return {
            other: (
                ask(run_ND, known[other], train_N).balanced_accuracy(weights[other]),
                answers.balanced_accuracy(weights[other], before=True),
            )
            for other, answers in plain.items()
            if other != name and answers.above_chance
        }

    results = [Result(name, plain[name], live) for name in chosen]
    for index, run_KND in enumerate(runs):
        if index >= len(results):
            for one in results:
                one.random.append(curve(one.name, run_KND))
            continue
        one = results[index]
        one.curve = curve(one.name, run_KND)
        if one.features:
            one.removed = orders[index][: one.features].tolist()
            one.kept = kept(one.name, run_KND[counts.index(one.features)])
    return results


def report_of(title: str, results: Sequence[Result], about: Mapping[str, Any]) -> Report:
    """A row for each concept, for the mean of each kind if there are several kinds, and last for the mean of all."""
    rows = [one.row() for one in results]
    by_kind: dict[str, list[Result]] = {}
    for one in results:
        by_kind.setdefault(one.kind, []).append(one)
    if len(by_kind) > 1:
        rows += [mean_row(some, kind) for kind, some in by_kind.items() if len(some) > 1]
    if len(rows) > 1:
        rows.append(mean_row(results))
    about = {
        **about,
        "enough": {one.name: one.removed for one in results},
        "kept": {
            one.name: {other: float(information(*both)[0]) for other, both in one.kept.items()} for one in results
        },
    }
    return Report(title, rows, [point for one in results for point in one.points()], about)


def checked(counts: Sequence[int], features: int) -> list[int]:
    if min(counts) < 1 or max(counts) > features:
        raise ConceptError(f"numbers of features to ablate are from 1 to the {features} that fire, not {list(counts)}")
    return sorted(set(counts))


@dataclass
class Result:
    """What was measured of a concept: its probe without an edit, the curves, and at the first number of features that
    is enough those features and the balanced accuracy [X] of each other concept, after and before."""

    name: str
    plain: Answers
    live: int
    curve: Curve = field(init=False)
    random: list[Curve] = field(default_factory=list)
    removed: list[int] = field(default_factory=list)
    kept: dict[str, Kept] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return self.name.partition("=")[0]

    @property
    def features(self) -> int | None:
        """How many were enough; None if the concept cannot be read anyway, or never was removed."""
        reached = self.plain.above_chance and self.curve.reached
        return self.curve.counts[int(self.curve.enough()[0])] if reached else None

    def needed(self) -> np.ndarray:
        return self.curve.needed(self.live)

    def random_needed(self) -> np.ndarray:
        return np.mean([curve.needed(self.live) for curve in self.random], axis=0)

    def left(self) -> np.ndarray:
        """What [X] the probe still knows with the features ablated that are enough, of what it knew."""
        return information(self.curve.accuracy_XK[:, int(self.curve.enough()[0])], self.curve.accuracy_XK[:, 0])

    def others(self) -> np.ndarray:
        """What [X] all other concepts know there, of what they knew."""
        return information(*np.mean(list(self.kept.values()), axis=0))

    def row(self) -> Row:
        clips, readable = len(self.plain.is_M), self.plain.above_chance
        needed, by_chance = None, None
        if readable:
            needed = replace(interval(self.needed(), clips, Needed), reached=self.curve.reached)
            if self.random:
                reached = any(curve.reached for curve in self.random)
                by_chance = replace(interval(self.random_needed(), clips, Needed), reached=reached)
        areas = [curve.area() for curve in self.random]
        return {
            "concept": self.name,
            "held out": f"{int(self.plain.is_M.sum())} of {clips}",
            "probe": interval(self.curve.accuracy_XK[:, 0], clips),
            "chance": self.plain.chance(),
            "needed": needed,
            "random": by_chance,
            "left": interval(self.left(), clips, Share) if self.features else None,
            "area": interval(self.curve.area(), clips),
            "random area": interval(np.mean(areas, axis=0), clips) if areas else None,
            "others keep": interval(self.others(), clips, Share) if self.kept else None,
        }

    def points(self) -> list[Row]:
        """The curves, a row for each number of features."""
        return [
            {
                "concept": self.name,
                "order": order,
                "features": count,
                "share": count / self.live,
                "accuracy": float(curve.accuracy_XK[0, k]),
                "low": float(np.percentile(curve.accuracy_XK[1:, k], 2.5)),
                "high": float(np.percentile(curve.accuracy_XK[1:, k], 97.5)),
                "chance": float(curve.chance_K[k]),
            }
            for order, curve in [("ranked", self.curve), *((f"random {i}", c) for i, c in enumerate(self.random, 1))]
            for k, count in enumerate(curve.counts)
        ]


def mean_row(results: Sequence[Result], kind: str = "") -> Row:
    """Means over the concepts that can be read; one that is not removed counts as needing all features."""
    read = [one for one in results if one.plain.above_chance]

    def mean(values: list[np.ndarray], kind: type[Interval] = Interval) -> Interval | None:
        return interval(np.mean(values, axis=0), len(values), kind) if values else None

    return {
        "concept": f"{kind}: mean of {len(read)}" if kind else f"mean of {len(read)}",
        "held out": None,
        "probe": mean([one.curve.accuracy_XK[:, 0] for one in read]),
        "chance": None,
        "needed": mean([one.needed() for one in read], Share),
        "random": mean([one.random_needed() for one in read if one.random], Share),
        "left": mean([one.left() for one in read if one.features], Share),
        "area": mean([one.curve.area() for one in read]),
        "random area": mean([curve.area() for one in read for curve in one.random]),
        "others keep": mean([one.others() for one in read if one.kept], Share),
    }


def draw(report: Report) -> Any:
    """A figure with a panel for each concept: probes over the share of features that is ablated, and chance.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require("matplotlib", "eval")
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(point["concept"] for point in report.clips))
    columns = min(4, len(names))
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(1 + 3.2 * columns, 0.8 + 2.4 * lines), dpi=110, layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    for axes in panels.flat[len(names) :]:
        axes.set_visible(False)
    for name, axes in zip(names, panels.flat, strict=False):
        for order in dict.fromkeys(point["order"] for point in report.clips):
            points = [one for one in report.clips if (one["concept"], one["order"]) == (name, order)][1:]
            share, accuracy, low, high, chance = (
                [one[key] for one in points] for key in ("share", "accuracy", "low", "high", "chance")
            )
            if order == "ranked":
                axes.fill_between(share, low, high, color=RANKED, alpha=0.2, linewidth=0)
                axes.plot(share, accuracy, color=RANKED, marker=".", label="ranked")
                axes.plot(share, chance, color="black", linestyle=":", linewidth=1, label="chance up to")
            else:
                axes.plot(share, accuracy, color=RANDOM, linewidth=1, label="random" if order == "random 1" else None)
        axes.set(title=name, xscale="log", ylim=(0.3, 1.03))
        axes.grid(alpha=0.25)
    panels.flat[0].legend(frameon=False, fontsize="small")
    figure.supxlabel("share of the features that is ablated")
    figure.supylabel("balanced accuracy of a fresh probe")
    return figure
