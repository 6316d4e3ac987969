"""Stability: which share of an SAE's features other seeds' SAEs have too.

A live feature has a counterpart in another SAE if the most similar one of that SAE's live features reaches a threshold.
Two measures: the cosine of decoder directions, and Pearson's correlation of the features over the same frames.
Counterparts need not be mutual: two features of a seed that are one feature in another both have theirs there. Both
thresholds are 0.7, as in arXiv 2501.16615; AudioSAE's (arXiv 2602.05027) are not in its abstract.

Controls: random directions of the same number and second moments in place of the other seed's, and the other seed's
features with their frames in random order.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from evaluation.report import Report, Row, bootstrap
from hooks.errors import AudioSteerError
from hooks.store import SiteFrames
from steer.sae import SAE

COSINE, CORRELATION = "decoder cosine", "correlation"
MIN_VARIANCE = 1e-9
"""Of the mean square: less is rounding, and the feature never changes."""


class StabilityError(AudioSteerError):
    """SAEs that cannot be compared, or no activations to compare them on."""


@torch.no_grad()
def evaluate(
    saes: Mapping[str, Sequence[SAE]],
    activations: Mapping[str, Iterable[Tensor]],
    *,
    cosine: float = 0.7,
    correlation: float = 0.7,
    min_frames: int = 10,
    block: int = 4096,
    seed: int = 0,
) -> Report:
    """Compare the SAEs of several seeds, {site: [one SAE a seed]}, on activations {site: blocks [N, D]}.

    Sites are gone through one by one, and the blocks of each once; of an `ActivationStore` pass
    `{site: in_blocks(store.frames(site)) for site in saes}`. Memory: 2 d_sae^2 numbers for each pair of seeds, and the
    features of `block` frames. A feature is live if it fires on `min_frames` frames or more; from fewer a correlation
    says nothing.

    There is a row for each site and measure. `matched` is the mean over the live features of all seeds of the share of
    other seeds where a feature has a counterpart, its interval is over features (the spread over seeds shows in `lowest
    pair`); `in every seed` is the share with a counterpart in all of them. `clips` holds every ordered pair of seeds.

    Raises:
        StabilityError: a site with fewer than two SAEs, of several widths, or without activations or live features.
    """
    thresholds = {COSINE: cosine, CORRELATION: correlation}
    rows: list[Row] = []
    pairs: list[Row] = []
    for site, seeds in saes.items():
        check(site, seeds, activations)
        sums = FeatureSums(seeds, seed)
        for x_ND in regrouped(activations[site], block):
            sums.add([encoded(site, sae, x_ND) for sae in seeds])
        live = [(fires_F >= min_frames).nonzero()[:, 0] for fires_F in sums.fires]
        if not all(map(len, live)):
            raise StabilityError(f"{site}: an SAE has no feature that fires on {min_frames} of {sums.frames} frames")
        for measure, threshold in thresholds.items():
            row, details = summary(compare(measure, seeds, sums, live, seed), threshold)
            head = {"site": site, "measure": f"{measure} >= {threshold:g}"}
            rows.append({**head, **row})
            pairs += [{**head, **detail} for detail in details]
    about = {"frames that a live feature fires on": min_frames, "seeds": {site: len(saes[site]) for site in saes}}
    return Report("Features that other seeds have too", rows, pairs, about)


def check(site: str, seeds: Sequence[SAE], activations: Mapping[str, Iterable[Tensor]]) -> None:
    if len(seeds) < 2:
        raise StabilityError(f"{site}: stability compares SAEs of several seeds, there is {len(seeds)}")
    widths = sorted({sae.d_in for sae in seeds})
    if len(widths) > 1:
        raise StabilityError(f"{site}: SAEs for activations {' and '.join(map(str, widths))} wide cannot be compared")
    if site not in activations:
        raise StabilityError(f"{site}: there are no activations, only of {', '.join(activations) or 'no site'}")


def encoded(site: str, sae: SAE, x_ND: Tensor) -> Tensor:
    if x_ND.shape[1] != sae.d_in:
        raise StabilityError(f"{site}: the SAEs take activations {sae.d_in} wide, these are {x_ND.shape[1]} wide")
    return sae.encode(x_ND.to(sae.W_enc.device)).float()


def in_blocks(frames: Tensor | SiteFrames, size: int = 4096) -> Iterator[Tensor]:
    """Frames [N, D] that can be sliced, as blocks."""
    for start in range(0, len(frames), size):
        yield frames[start : start + size]


def regrouped(blocks: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """The same frames in blocks of `size`: the control shuffles within a block, which must not be one short clip."""
    rest: list[Tensor] = []
    held = 0
    for block_ND in blocks:
        for piece_ND in block_ND.split(size):
            rest.append(piece_ND)
            held += len(piece_ND)
            if held >= size:
                whole_ND = torch.cat(rest)
                yield whole_ND[:size]
                rest, held = [whole_ND[size:]], held - size
    if held:
        yield torch.cat(rest)


class FeatureSums:
    """Sums over frames, from which follow how often features fire and how those of two SAEs correlate."""

    def __init__(self, saes: Sequence[SAE], seed: int = 0) -> None:
        self.frames = 0
        self.generator = torch.Generator().manual_seed(seed)
        sizes = [sae.d_sae for sae in saes]
        device = saes[0].W_dec.device
        self.fires, self.totals, self.squares = (
            [torch.zeros(size, dtype=torch.float64, device=device) for size in sizes] for _ in range(3)
        )
        pairs = list(itertools.combinations(range(len(saes)), 2))
        self.products, self.shuffled = (
            {(a, b): torch.zeros(sizes[a], sizes[b], device=device) for a, b in pairs} for _ in range(2)
        )
        self.centres: list[Tensor] = []

    def add(self, features: Sequence[Tensor]) -> None:
        """One block: the features [N, F] of each SAE on the same frames."""
        # near their means, so that no large numbers have to cancel in float32
        self.centres = self.centres or [f_NF.mean(0) for f_NF in features]
        centred = [f_NF - centre_F for f_NF, centre_F in zip(features, self.centres, strict=True)]
        self.frames += len(features[0])
        for index, (f_NF, c_NF) in enumerate(zip(features, centred, strict=True)):
            self.fires[index] += (f_NF > 0).sum(0)
            self.totals[index] += c_NF.sum(0, dtype=torch.float64)
            self.squares[index] += c_NF.square().sum(0, dtype=torch.float64)
        order = torch.randperm(len(features[0]), generator=self.generator).to(features[0].device)
        for a, b in self.products:
            self.products[a, b] += centred[a].T @ centred[b]
            self.shuffled[a, b] += centred[a].T @ centred[b][order]

    def correlation(self, a: int, b: int, shuffled: bool = False) -> Tensor:
        """Pearson's correlation [F, G] of the features of SAEs a and b; 0 where one never changes."""
        if a > b:
            return self.correlation(b, a, shuffled).T
        product_FG = (self.shuffled if shuffled else self.products)[a, b]
        means_FG = torch.outer(self.totals[a] / self.frames, self.totals[b] / self.frames).float()
        covariance_FG = product_FG / self.frames - means_FG
        return covariance_FG * self._scale(a)[:, None] * self._scale(b)

    def _scale(self, index: int) -> Tensor:
        """One over the standard deviation."""
        square_F = self.squares[index] / self.frames
        variance_F = square_F - (self.totals[index] / self.frames).square()
        return torch.where(variance_F > MIN_VARIANCE * square_F, variance_F.rsqrt(), 0).float()


def decoder_cosine(a_FD: Tensor, b_GD: Tensor) -> Tensor:
    """Cosine [F, G] of all pairs of directions."""
    return normalize(a_FD, dim=1) @ normalize(b_GD, dim=1).T


def random_like(directions_FD: Tensor, generator: torch.Generator) -> Tensor:
    """As many random directions with the same second moments; even ones in all directions would be too easy to beat."""
    count = len(directions_FD)
    mix_FF = torch.randn(count, count, generator=generator).to(directions_FD)
    return mix_FF @ normalize(directions_FD, dim=1)


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
            similarity_FG, control_FG = (
                sums.correlation(a, b, shuffled)[live[a]][:, live[b]] for shuffled in (False, True)
            )
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
    row = {
        "live": len(matched) / len(best),
        "matched": bootstrap(matched.tolist(), rounds=500),
        "in every seed": bootstrap((matched == 1).tolist(), rounds=500),
        "lowest pair": min(detail["matched"] for detail in details),
        "control": bootstrap(control.tolist(), rounds=500),
    }
    return row, details


def shares(best: Mapping[int, Sequence[Tensor]], threshold: float) -> np.ndarray:
    """For each live feature of each seed, the share of other seeds where it reaches the threshold."""
    return np.concatenate(
        [(torch.stack(list(others)) >= threshold).double().mean(0).numpy() for others in best.values()]
    )
