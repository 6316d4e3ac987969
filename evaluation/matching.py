"""How alike the features of two SAEs are: by direction, by correlation, and by the frames on which they fire."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from hooks.precision import widest
from hooks.store import SiteFrames
from steer.sae import SAE

MIN_VARIANCE = 1e-9
"""Of the mean square: less is rounding, and the feature never changes."""


class FeatureSums:
    """Sums over frames, from which follow how often features fire, and how those of two SAEs correlate and overlap.

    Everything is summed twice, the second time with the other SAE's frames in random order within a block.
    """

    def __init__(self, saes: Sequence[SAE], seed: int = 0) -> None:
        self.frames = 0
        self.generator = torch.Generator().manual_seed(seed)
        sizes = [sae.d_sae for sae in saes]
        device = saes[0].W_dec.device
        self.wide = widest(device)
        self.fires, self.totals, self.squares = (
            [torch.zeros(size, dtype=self.wide, device=device) for size in sizes] for _ in range(3)
        )

        def for_pairs(dtype: torch.dtype) -> dict[tuple[int, int], Tensor]:
            pairs = itertools.combinations(range(len(saes)), 2)
            return {(a, b): torch.zeros(sizes[a], sizes[b], dtype=dtype, device=device) for a, b in pairs}

        self.products, self.shuffled_products = for_pairs(torch.float32), for_pairs(torch.float32)
        self.together, self.shuffled_together = for_pairs(torch.int32), for_pairs(torch.int32)
        self.centres: list[Tensor] = []

    def add(self, features: Sequence[Tensor]) -> None:
        """One block: the features [N, F] of each SAE on the same frames."""
        # near their means, so that no large numbers have to cancel in float32
        self.centres = self.centres or [f_NF.mean(0) for f_NF in features]
        centred = [f_NF - centre_F for f_NF, centre_F in zip(features, self.centres, strict=True)]
        # as float32: a product of them counts exactly, up to 2^24 frames a block
        firing = [(f_NF > 0).float() for f_NF in features]
        self.frames += len(features[0])
        for index, (fires_NF, c_NF) in enumerate(zip(firing, centred, strict=True)):
            self.fires[index] += fires_NF.sum(0, dtype=self.wide)
            self.totals[index] += c_NF.sum(0, dtype=self.wide)
            self.squares[index] += c_NF.square().sum(0, dtype=self.wide)
        order = torch.randperm(len(features[0]), generator=self.generator).to(features[0].device)
        for a, b in self.products:
            self.products[a, b] += centred[a].T @ centred[b]
            self.shuffled_products[a, b] += centred[a].T @ centred[b][order]
            self.together[a, b] += (firing[a].T @ firing[b]).int()
            self.shuffled_together[a, b] += (firing[a].T @ firing[b][order]).int()

    def correlation(self, a: int, b: int, shuffled: bool = False) -> Tensor:
        """Pearson's correlation [F, G] of the features of SAEs a and b; 0 where one never changes."""
        if a > b:
            return self.correlation(b, a, shuffled).T
        product_FG = (self.shuffled_products if shuffled else self.products)[a, b]
        means_FG = torch.outer(self.totals[a] / self.frames, self.totals[b] / self.frames).float()
        covariance_FG = product_FG / self.frames - means_FG
        return covariance_FG * self._scale(a)[:, None] * self._scale(b)

    def _scale(self, index: int) -> Tensor:
        """One over the standard deviation."""
        square_F = self.squares[index] / self.frames
        variance_F = square_F - (self.totals[index] / self.frames).square()
        return torch.where(variance_F > MIN_VARIANCE * square_F, variance_F.rsqrt(), 0).float()

    def overlap(self, a: int, b: int, shuffled: bool = False) -> Tensor:
        """Frames on which both fire over frames on which either does [F, G]; 0 where neither ever fires."""
        if a > b:
            return self.overlap(b, a, shuffled).T
        both_FG = (self.shuffled_together if shuffled else self.together)[a, b].to(self.wide)
        either_FG = self.fires[a][:, None] + self.fires[b] - both_FG
        return (both_FG / either_FG.clamp(min=1)).float()


def decoder_cosine(a_FD: Tensor, b_GD: Tensor) -> Tensor:
    """Cosine [F, G] of all pairs of directions."""
    return normalize(a_FD, dim=1) @ normalize(b_GD, dim=1).T


def random_like(directions_FD: Tensor, generator: torch.Generator) -> Tensor:
    """As many random directions with the same second moments; even ones in all directions would be too easy to beat."""
    count = len(directions_FD)
    mix_FF = torch.randn(count, count, generator=generator).to(directions_FD)
    return mix_FF @ normalize(directions_FD, dim=1)


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
