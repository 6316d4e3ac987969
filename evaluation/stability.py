"""`steer evaluate stability`: which share of an SAE's features other seeds' SAEs have too.

A live feature has a counterpart in another SAE if the most similar one of that SAE's live features reaches a threshold.
Counterparts need not be mutual: two features of a seed that are one feature in another both have theirs there. Three
measures:

- the cosine of decoder directions, from 0.7 on, and Pearson's correlation of the features over the same frames, from
  0.7 on (thresholds as in arXiv 2501.16615);
- the overlap of the frames on which they fire: those where both do over those where either does (IoU), from 0.5 on, as
  AudioSAE measures it (arXiv 2602.05027).

Controls: random directions of the same number and second moments in place of the other seed's, and the other seed's
features with their frames in random order.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from evaluation.ablation import Explained
from evaluation.dataset import LabelledSound
from evaluation.matching import FeatureSums, decoder_cosine, in_blocks, random_like, regrouped
from evaluation.report import Progress, Report, Row, Share
from evaluation.seeds import StabilityError, check
from hooks import AudioModel
from hooks.store_writing import fill
from steer.sae import SAE

COSINE, CORRELATION, OVERLAP = "decoder cosine", "correlation", "firing overlap"


def of_sounds(
    model: AudioModel,
    saes: Mapping[str, Sequence[SAE]],
    sounds: Sequence[LabelledSound],
    *,
    progress: Progress = iter,
    seed: int = 0,
) -> Report:
    """`evaluate` on what a model gives of sounds; its activations are kept in a temporary folder meanwhile.

    Raises:
        SiteError: the model has no such site.
        StabilityError: as `evaluate`.
        AudioFileError: a sound that cannot be read.
    """
    for site, seeds in saes.items():
        width = model.site(site).width
        if width not in (None, seeds[0].d_in):
            raise StabilityError(
                f"the SAEs are for activations {seeds[0].d_in} wide, but site {site!r} of {model.name} is {width} wide"
            )
    with TemporaryDirectory(prefix="audiosteer-") as folder:
        store = fill(folder, model, (sound.source for sound in progress(list(sounds))), list(saes), dtype="float32")
        report = evaluate(saes, {site: in_blocks(store.frames(site)) for site in saes}, progress=progress, seed=seed)
    report.about = {"model": model.name, "sounds": len(sounds), **report.about}
    return report


@torch.no_grad()
def evaluate(
    saes: Mapping[str, Sequence[SAE]],
    activations: Mapping[str, Iterable[Tensor]],
    *,
    cosine: float = 0.7,
    correlation: float = 0.7,
    overlap: float = 0.5,
    min_frames: int = 10,
    block: int = 4096,
    seed: int = 0,
    progress: Progress = iter,
) -> Report:
    """Compare the SAEs of several seeds, {site: [one SAE a seed]}, on activations {site: blocks [N, D]}.

    Sites are gone through one by one, and the blocks of each once; of an `ActivationStore` pass
    `{site: in_blocks(store.frames(site)) for site in saes}`. Memory: 4 d_sae^2 numbers for each pair of seeds, and the
    features of `block` frames. A feature is live if it fires on `min_frames` frames or more; from fewer neither a
    correlation nor an overlap says anything.

    There is a row for each site and measure. `matched` is the mean over the live features of all seeds of the share of
    other seeds where a feature has a counterpart, its interval is over features (the spread over seeds shows in `lowest
    pair`); `in every seed` is the share with a counterpart in all of them. `clips` holds every ordered pair of seeds.

    Raises:
        StabilityError: a site with fewer than two SAEs, SAEs that belong elsewhere, no activations or live features.
    """
    thresholds = {COSINE: cosine, CORRELATION: correlation, OVERLAP: overlap}
    rows: list[Row] = []
    pairs: list[Row] = []
    explained: dict[str, list[float]] = {}
    for site, seeds in progress(list(saes.items())):
        check(site, seeds)
        if site not in activations:
            raise StabilityError(f"{site}: there are no activations, only of {', '.join(activations) or 'no site'}")
        sums, explained[site] = summed(site, seeds, regrouped(activations[site], block), seed)
        live = [(fires_F >= min_frames).nonzero()[:, 0] for fires_F in sums.fires]
        if not all(map(len, live)):
            raise StabilityError(f"{site}: an SAE has no feature that fires on {min_frames} of {sums.frames} frames")
        for measure, threshold in thresholds.items():
            row, details = summary(compare(measure, seeds, sums, live, seed), threshold)
            head = {"site": site, "measure": f"{measure} >= {threshold:g}"}
            rows.append({**head, **row})
            pairs += [{**head, **detail} for detail in details]
    about = {
        "frames that a live feature fires on": min_frames,
        "seeds": {site: len(saes[site]) for site in saes},
        "explained variance": explained,
    }
    return Report("Features that other seeds have too", rows, pairs, about)


def summed(site: str, seeds: Sequence[SAE], blocks: Iterable[Tensor], seed: int) -> tuple[FeatureSums, list[float]]:
    """The sums over all blocks, and how much of the activations each SAE explains.

    Raises:
        StabilityError: activations of another width, or of which an SAE explains nothing.
    """
    sums, explained = FeatureSums(seeds, seed), [Explained(sae) for sae in seeds]
    for x_ND in blocks:
        if x_ND.shape[1] != seeds[0].d_in:
            raise StabilityError(
                f"{site}: the SAEs take activations {seeds[0].d_in} wide, these are {x_ND.shape[1]} wide"
            )
        x_BTD = x_ND.to(seeds[0].W_enc.device, torch.float32)[None]
        sums.add([encode(x_BTD)[0].float() for encode in explained])
    for one in explained:
        if one.share() <= 0:
            raise StabilityError(
                f"{site}: an SAE explains nothing there (explained variance {one.share():.2g}): it belongs to another "
                f"model or site{one.origin}"
            )
    return sums, [one.share() for one in explained]


Compared = tuple[int, int, Tensor, Tensor]
"""Seeds a and b; each live feature of a: its best similarity [F] in b, and in the control."""


def compare(
    measure: str, saes: Sequence[SAE], sums: FeatureSums, live: Sequence[Tensor], seed: int
) -> Iterator[Compared]:
    """Every ordered pair of seeds."""
    generator = torch.Generator().manual_seed(seed)
    for a, b in itertools.permutations(range(len(saes)), 2):
        if measure == COSINE:
            a_FD, b_GD = saes[a].W_dec[live[a]], saes[b].W_dec[live[b]]
            similarity_FG = decoder_cosine(a_FD, b_GD)
            control_FG = decoder_cosine(a_FD, random_like(b_GD, generator))
        else:
            similar = sums.correlation if measure == CORRELATION else sums.overlap
            similarity_FG, control_FG = (similar(a, b, shuffled)[live[a]][:, live[b]] for shuffled in (False, True))
        yield a, b, similarity_FG.amax(1).cpu(), control_FG.amax(1).cpu()


def summary(compared: Iterable[Compared], threshold: float) -> tuple[Row, list[Row]]:
    """The row of one site and measure, and a row for each ordered pair of seeds."""
    best: dict[int, list[Tensor]] = {}
    by_chance: dict[int, list[Tensor]] = {}
    details: list[Row] = []
    for a, b, best_F, control_F in compared:
        best.setdefault(a, []).append(best_F)
        by_chance.setdefault(a, []).append(control_F)
        details.append(
            {
                "seed": a,
                "other": b,
                "live": len(best_F),
                "matched": float((best_F >= threshold).double().mean()),
                "control": float((control_F >= threshold).double().mean()),
                "median similarity": float(best_F.median()),
                "median of control": float(control_F.median()),
            }
        )
    matched, control = shares(best, threshold), shares(by_chance, threshold)
    reached = [(best_F >= threshold).numpy() for others in best.values() for best_F in others]
    row = {
        "live": len(matched) / len(best),
        "matched": over_features(matched),
        "in every seed": over_features(matched == 1),
        "lowest pair": over_features(min(reached, key=np.mean)),
        "control": over_features(control),
    }
    return row, details


def over_features(values_F: np.ndarray) -> Share:
    """The mean, with an interval by resampling features."""
    values_F = np.asarray(values_F, dtype=float)
    draws_RF = np.random.default_rng(0).integers(len(values_F), size=(500, len(values_F)))
    low, high = np.percentile(values_F[draws_RF].mean(1), [2.5, 97.5])
    return Share(float(values_F.mean()), float(low), float(high), len(values_F))


def shares(best: Mapping[int, Sequence[Tensor]], threshold: float) -> np.ndarray:
    """For each live feature of each seed, the share of other seeds where it reaches the threshold."""
    return np.concatenate(
        [(torch.stack(list(others)) >= threshold).double().mean(0).numpy() for others in best.values()]
    )
