"""`steer evaluate sparse-probing`: how few features of an SAE tell a concept, at each layer: what a model knows where.

As k-sparse probing (Gurnee et al., arXiv 2305.01610; AudioSAE, arXiv 2602.05027v2, appendix E.3): the features that
tell a concept best by the Fisher score of the clips to train on, the first 1, 2, 5, ... of them, and a linear probe on
those alone, fitted on the same clips and asked about the held-out ones (`evaluation.probing`, which says what chance
and the intervals are). A clip's features are their maximum over its frames, or their mean.

Controls: a probe on all features that fire, and on as many random ones as the most that are tried, several draws. A
concept that the probe on all features cannot tell is shown, and is not in a mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.ablation import ConceptError
from evaluation.concepts import chosen_of, concepts_of, fisher_score
from evaluation.dataset import LabelledSound
from evaluation.passes import Kept
from evaluation.probing import ROUNDS, Answers, Weights, ask, interval, resampled
from evaluation.remaining import Pooling
from evaluation.removal import live_in
from evaluation.report import Progress, Report, Row
from evaluation.site_features import site_features
from steer.steered import SteeredModel

COUNTS = (1, 2, 5, 10, 20)
ALL, RANDOM = "all", "random"


def evaluate(
    steered: SteeredModel,
    train: Sequence[LabelledSound],
    held_out: Sequence[LabelledSound],
    concepts: Sequence[str] = (),
    *,
    sites: Sequence[str],
    counts: Sequence[int] = COUNTS,
    draws: int = 5,
    pooling: Pooling = "max",
    seed: int = 0,
    kept: Kept | None = None,
    progress: Progress = iter,
) -> dict[str, Report]:
    """{site: report} of the concepts that are named (`sound=rain`, or `sound` for all of that kind), or of all. Each
    clip runs through the model once for all sites; those in `kept` do not.

    In a report a row for each concept, for each kind's mean, and for the mean of all: balanced accuracies, 0.5 for
    chance, by number of features. `about` has the features of each concept, the best first.

    Raises:
        ConceptError: too few clips of a concept, an unknown one, an SAE that does not explain its site, or numbers of
            features that are not above 0.
        AudioFileError: a clip that cannot be read.
        MissingExtraError: scikit-learn is not installed.
    """
    if not counts or min(counts) < 1:
        raise ConceptError(f"numbers of features are from 1, not {list(counts)}")
    counts = sorted(set(counts))
    clips = [*train, *held_out]
    train_N = np.arange(len(clips)) < len(train)
    known = concepts_of(train, held_out)
    chosen = chosen_of(known, concepts, train_N)
    features = site_features(steered, sites, clips, kept, progress)
    resampling = resampled([clip.speaker for clip in clips], ROUNDS, seed)
    reports = {}
    for site in progress(list(sites)):
        f_NF = features[site].max_NF if pooling == "max" else features[site].mean_NF
        live = live_in(f_NF, train_N)
        generator = np.random.default_rng(seed)
        random = [generator.permutation(live)[: counts[-1]] for _ in range(draws)]
        found = [probed(name, f_NF, live, known[name], train_N, counts, random, resampling) for name in chosen]
        about = {
            "model": steered.model.name,
            "site": site,
            "clips to train on": len(train),
            "clips held out": len(held_out),
            "features": f_NF.shape[1],
            "features that fire": len(live),
            "pooling": pooling,
            "random draws": draws,
            "best features": {one.name: one.best for one in found},
        }
        reports[site] = Report(
            f"Balanced accuracy of a probe on the best features of {site}", rows_of(found), [], about
        )
    return reports


@dataclass(frozen=True)
class Probed:
    """What probes on few features say of a concept: balanced accuracies [X] by number of features, on `ALL`, and in
    the mean on `RANDOM` ones; and the features that tell it best, in order."""

    name: str
    answers: Answers
    accuracy: Mapping[str, np.ndarray]
    best: list[int]

    def row(self) -> Row:
        clips = len(self.answers.is_M)
        return {
            "concept": self.name,
            "held out": f"{int(self.answers.is_M.sum())} of {clips}",
            "chance": self.answers.chance(),
            **{name: interval(values_X, clips) for name, values_X in self.accuracy.items()},
        }


def probed(
    name: str,
    f_NF: np.ndarray,
    live: np.ndarray,
    y_N: np.ndarray,
    train_N: np.ndarray,
    counts: Sequence[int],
    random: Sequence[np.ndarray],
    resampling: Weights,
) -> Probed:
    fit_N, weights = train_N & (y_N >= 0), resampling.of(name)
    score_F = fisher_score(f_NF[fit_N][:, live], y_N[fit_N] == 1)
    best = live[np.argsort(-score_F, kind="stable")]

    def accuracy(some: np.ndarray) -> np.ndarray:
        return ask(f_NF[:, some], y_N, train_N).balanced_accuracy(weights)

    answers = ask(f_NF[:, live], y_N, train_N)
    by_count = {str(count): accuracy(best[:count]) for count in counts} | {ALL: answers.balanced_accuracy(weights)}
    if random:
        by_count[f"{RANDOM} {counts[-1]}"] = np.mean([accuracy(some) for some in random], axis=0)
    return Probed(name, answers, by_count, best[: counts[-1]].tolist())


def rows_of(found: Sequence[Probed]) -> list[Row]:
    """A row for each concept, for the mean of each kind with several of them, and for that of all."""
    kinds: dict[str, list[Probed]] = {}
    for one in found:
        kinds.setdefault(one.name.partition("=")[0], []).append(one)
    rows = [one.row() for one in found]
    if len(kinds) > 1:
        rows += [mean_row(some, f"{kind}: ") for kind, some in kinds.items() if len(some) > 1]
    return [*rows, mean_row(found)] if len(found) > 1 else rows


def mean_row(found: Sequence[Probed], kind: str = "") -> Row:
    read = [one for one in found if one.answers.above_chance]
    return {
        "concept": f"{kind}mean of {len(read)}",
        "held out": None,
        "chance": None,
        **{
            name: interval(np.mean([one.accuracy[name] for one in read], axis=0), len(read)) if read else None
            for name in found[0].accuracy
        },
    }
