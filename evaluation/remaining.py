"""AudioSAE's own protocol for concept removal: a fresh probe on the features of an SAE that remain.

As in AudioSAE (arXiv 2602.05027v2, sections 3.3.3 and 4.5, appendix E): the features of an SAE are ranked by the Fisher
score of a concept, those ranked first are taken away, and each time a linear probe is trained anew on what remains.
The model does not run again. Features count by their maximum over a clip, the paper's pooling of whole recordings
(section 3.3). Its figures are for one spoken vowel at HuBERT's last layer: the first 1152 of 6144 features (19 %) all
but erase it, and up to 27 % the other vowels stay.

What differs here:

- The probe. The paper's has no penalty, which with more features than clips has no single solution (its appendix E says
  that it converges badly); ours has a weak one, `evaluation.probing`, on features of mean 0 and variance 1.
- What counts as erased. The paper reads off a curve of Matthews correlations that the vowel is almost gone. Here a
  concept is erased where the probe's balanced accuracy on held-out clips is at chance (`evaluation.probing`), and
  stays so for the larger numbers tried.
- The share. The paper's is of all features; ours is of those that fire on a clip to train on, so dead features do not
  count. `about` has both numbers.
- The clips. The paper divides the recordings of the same five speakers 5 : 2; here the splits of the manifests hold,
  which for digits means another speaker.
- Controls: random orders of the same features, and what the probes of all other concepts keep, chance taken off.

The paper's protocol says what an SAE's features hold, not what the model makes of it: `evaluation.removal` reads
behind the edited site.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from evaluation.ablation import decoder_norms
from evaluation.concepts import chosen_of, concepts_of, contribution, fisher_score, log_counts, too_few
from evaluation.dataset import LabelledSound
from evaluation.passes import Kept
from evaluation.removal import Rank, checked, live_in, orders_of, removed, report_of
from evaluation.report import Progress, Report
from evaluation.site_features import site_features
from steer.steered import SteeredModel

Pooling = Literal["max", "mean"]


def evaluate(
    steered: SteeredModel,
    train: Sequence[LabelledSound],
    held_out: Sequence[LabelledSound],
    concepts: Sequence[str] = (),
    *,
    sites: Sequence[str],
    counts: Sequence[int] | None = None,
    points: int = 12,
    draws: int = 3,
    rank: Rank = "fisher",
    pooling: Pooling = "max",
    seed: int = 0,
    kept: Kept | None = None,
    progress: Progress = iter,
) -> dict[str, Report]:
    """{site: report}, the rows as those of `evaluation.removal.evaluate`. Each clip runs through the model once for
    all sites; those in `kept` do not.

    Raises:
        ConceptError: too few clips of a concept, an unknown one, or an SAE that does not explain its site.
        AudioFileError: a clip that cannot be read.
        MissingExtraError: scikit-learn is not installed.
    """
    clips = [*train, *held_out]
    train_N = np.arange(len(clips)) < len(train)
    known = concepts_of(train, held_out)
    chosen = chosen_of(known, concepts, train_N)
    known = {name: y_N for name, y_N in known.items() if name in chosen or not too_few(y_N, train_N)}
    features = site_features(steered, sites, clips, kept, progress)
    reports = {}
    for site in progress(list(sites)):
        f_NF = features[site].max_NF if pooling == "max" else features[site].mean_NF
        live = live_in(f_NF, train_N)
        tried = checked(counts, len(live)) if counts else log_counts(len(live), points)
        norm_F = decoder_norms(steered, site, live, f_NF.shape[1])

        def score(f_NL: np.ndarray, is_N: np.ndarray, norm_F: np.ndarray = norm_F) -> np.ndarray:
            return contribution(f_NL, is_N, norm_F) if rank == "contribution" else fisher_score(f_NL, is_N)

        orders = orders_of(f_NF, live, known, chosen, train_N, score, draws, seed)
        results = removed(
            f_NF[:, live],
            remaining(f_NF, live, orders, tried),
            orders,
            tried,
            len(live),
            known,
            chosen,
            train_N,
            [clip.speaker for clip in clips],
            seed,
        )
        about = {
            "model": steered.model.name,
            "site": site,
            "read at": "the features that remain",
            "clips to train on": len(train),
            "clips held out": len(held_out),
            "features": f_NF.shape[1],
            "features that fire": len(live),
            "ranked by": rank,
            "pooling": pooling,
            "random draws": draws,
        }
        reports[site] = report_of(f"Features of {site} removed until the rest does not tell a concept", results, about)
    return reports


class Remaining(Sequence[np.ndarray]):
    """The live features [K of N, L], without the first `counts[k]` of an order: those are 0. Made when asked for."""

    def __init__(self, f_NL: np.ndarray, place_L: np.ndarray, counts: Sequence[int]) -> None:
        self.f_NL, self.place_L, self.counts = f_NL, place_L, counts

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, k: int) -> np.ndarray:  # type: ignore[override]
        return np.where(self.place_L < self.counts[k], 0, self.f_NL)


def remaining(
    f_NF: np.ndarray, live: np.ndarray, orders: Sequence[np.ndarray], counts: Sequence[int]
) -> Iterator[Remaining]:
    """For each order of the live features what remains of them."""
    for order in orders:
        place_F = np.empty(f_NF.shape[1], dtype=int)
        place_F[order] = np.arange(len(order))
        yield Remaining(f_NF[:, live], place_F[live], counts)
