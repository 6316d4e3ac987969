"""Training's way through a sparse SAE: features as (row, feature) pairs, with gradients that cost what is active.

The textbook step is six products with the whole dictionary. Of them only the encoder's is needed: the gradient of a
row of the weights is a sum over the few vectors in which its feature was active. So the pairs are sorted by feature
once, and both weight gradients are sums over runs of that list.

On a GPU whose kernels work (`steer.kernels.usable`) the list has a fixed length, `Slots`, some of which may be empty,
so that no step waits for the GPU to say how many features are active.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from steer.encoder import Encoder
from steer.kernels import bags, chunks, encode_topk, topk, usable
from steer.matmul import linear
from steer.parallel import ALONE, Group


@dataclass(frozen=True)
class Pairs:
    """Which features are active in which rows, in the order of the rows: `rows_P`, `features_P`."""

    rows_P: Tensor
    features_P: Tensor
    rows: int
    features: int

    @cached_property
    def count_F(self) -> Tensor:
        """In how many rows each feature is active."""
        return torch.bincount(self.features_P, minlength=self.features)

    @cached_property
    def by_feature(self) -> tuple[Tensor, Tensor]:
        """The pairs in the order of their features: their places in this list, and where each feature begins."""
        # stable, so that sums are always added up in the same order
        return self.features_P.argsort(stable=True), self.count_F.cumsum(0) - self.count_F

    def active(self, values_P: Tensor) -> Tensor:
        """How many pairs are active in a row, on average."""
        return values_P.new_tensor(len(values_P) / self.rows)

    def least(self, values_P: Tensor) -> Tensor:
        """The smallest value of an active pair, infinite where there is none."""
        return values_P.amin() if len(values_P) else values_P.new_tensor(torch.inf)

    def between(self, begin: int, end: int, values_P: Tensor) -> tuple[Pairs, Tensor]:
        """The pairs of the features from `begin` to before `end`, which are counted from there, and their values."""
        inside_P = (self.features_P >= begin) & (self.features_P < end)
        some = Pairs(self.rows_P[inside_P], self.features_P[inside_P] - begin, self.rows, end - begin)
        return some, values_P[inside_P]

    def sums(self, W_FD: Tensor, values_P: Tensor) -> Tensor:
        """[N, D]: for each row the sum of its features' rows in `W_FD`, times their values."""
        return bags(W_FD, self.rows_P, self.features_P, values_P, self.rows)

    def sums_and_slope(self, W_FD: Tensor, values_P: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The sums, and the function from their gradient [N, D] to that of the values [P]."""
        # torch's own gradient of these sums in their weights is a dot product a pair
        with torch.enable_grad():
            weights_P = values_P.detach().requires_grad_()
            out_ND = self.sums(W_FD.detach(), weights_P)
        return out_ND.detach(), lambda grad_ND: torch.autograd.grad(out_ND, weights_P, grad_ND)[0]

    def sums_by_feature(self, x_ND: Tensor, values_P: Tensor) -> Tensor:
        """[F, D]: for each feature the sum of its rows in `x_ND`, times their values."""
        order_P, starts_F = self.by_feature
        return F.embedding_bag(
            self.rows_P[order_P], x_ND, starts_F, mode="sum", per_sample_weights=values_P[order_P].contiguous()
        )

    def totals_by_feature(self, values_P: Tensor) -> Tensor:
        """[F]: for each feature the sum of its values."""
        return values_P.new_zeros(self.features).index_add_(0, self.features_P, values_P)


@dataclass(frozen=True)
class Slots(Pairs):
    """Pairs of a fixed number, in memory of a GPU: a slot that is not `filled_P` has the value 0 and no gradient.

    `starts_N` [N + 1] says where the slots of each row begin; without it each row has equally many.
    """

    filled_P: Tensor
    starts_N: Tensor | None = None

    @property
    def k(self) -> int | None:
        return len(self.rows_P) // max(self.rows, 1) if self.starts_N is None else None

    @cached_property
    def ordered(self) -> tuple[Tensor, Tensor]:
        """Filled slots in the order of their features, others last; and where each feature begins [F + 1]."""
        from steer.kernels.gpu import sums as gpu_sums

        return gpu_sums.by_id(torch.where(self.filled_P, self.features_P, self.features), self.features)

    @cached_property
    def count_F(self) -> Tensor:
        return self.ordered[1].diff()

    def active(self, values_P: Tensor) -> Tensor:
        return self.filled_P.sum().to(values_P.dtype) / self.rows

    def least(self, values_P: Tensor) -> Tensor:
        known_P = torch.where(self.filled_P, values_P, torch.inf)
        return known_P.amin() if len(known_P) else values_P.new_full((), torch.inf)

    def between(self, begin: int, end: int, values_P: Tensor) -> tuple[Pairs, Tensor]:
        inside_P = self.filled_P & (self.features_P >= begin) & (self.features_P < end)
        features_P = torch.where(inside_P, self.features_P - begin, 0)
        some = Slots(self.rows_P, features_P, self.rows, end - begin, inside_P, self.starts_N)
        return some, torch.where(inside_P, values_P, 0)

    def sums(self, W_FD: Tensor, values_P: Tensor) -> Tensor:
        from steer.kernels.gpu import sums as gpu_sums

        return gpu_sums.sums(self.features_P, values_P, W_FD, k=self.k, starts_N=self.starts_N)

    def sums_and_slope(self, W_FD: Tensor, values_P: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        from steer.kernels.gpu import sums as gpu_sums

        def slope(grad_ND: Tensor) -> Tensor:
            dots_P = gpu_sums.dots(grad_ND, self.features_P, W_FD, k=self.k, starts_N=self.starts_N)
            return torch.where(self.filled_P, dots_P, 0)

        return self.sums(W_FD, values_P), slope

    def sums_by_feature(self, x_ND: Tensor, values_P: Tensor) -> Tensor:
        from steer.kernels.gpu import sums as gpu_sums

        order_P, starts_F = self.ordered
        shape = gpu_sums.LONG
        return gpu_sums.sums(self.rows_P[order_P], values_P[order_P], x_ND, starts_N=starts_F, shape=shape)

    def totals_by_feature(self, values_P: Tensor) -> Tensor:
        from steer.kernels.gpu import sums as gpu_sums

        order_P, starts_F = self.ordered
        ones_11 = values_P.new_ones(1, 1)
        zeros_P = torch.zeros_like(order_P)
        return gpu_sums.sums(zeros_P, values_P[order_P], ones_11, starts_N=starts_F, shape=gpu_sums.LONG)[:, 0]


class EncodePairs(torch.autograd.Function):
    """Gives `values_P` of pairs, which are x W_enc + b_enc - b_dec W_enc there, their gradients (none to x)."""

    @staticmethod
    def forward(
        ctx: Any, pairs: Pairs, values_P: Tensor, x_ND: Tensor, W_DF: Tensor, b_F: Tensor, b_D: Tensor | None
    ) -> Tensor:
        ctx.pairs = pairs
        ctx.save_for_backward(x_ND, W_DF, b_D)
        return values_P.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        pairs, (x_ND, W_DF, b_D) = ctx.pairs, ctx.saved_tensors
        grad_FD = pairs.sums_by_feature(x_ND, grads[0])
        bias_F = pairs.totals_by_feature(grads[0])
        if b_D is None:
            return None, None, None, grad_FD.T, bias_F, None
        return None, None, None, grad_FD.addr_(bias_F, b_D, alpha=-1).T, bias_F, -(W_DF @ bias_F)


class DecodePairs(torch.autograd.Function):
    """The sums of decoder rows, [N, D], times `values_P`."""

    @staticmethod
    def forward(ctx: Any, pairs: Pairs, values_P: Tensor, W_FD: Tensor) -> Tensor:
        ctx.pairs = pairs
        ctx.save_for_backward(values_P)
        out_ND, ctx.slope = pairs.sums_and_slope(W_FD, values_P)
        return out_ND

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (values_P,) = ctx.saved_tensors
        grad_ND = grads[0].contiguous()
        return None, ctx.slope(grad_ND), ctx.pairs.sums_by_feature(grad_ND, values_P)


@torch.no_grad()
def topk_pairs(encoder: Encoder, x_ND: Tensor, k: int) -> tuple[Pairs, Tensor]:
    """The k largest features of each row, those of them that are positive, and their values."""
    values_NK, features_NK = encode_topk(x_ND, encoder.W_enc, encoder.b_enc, k)
    rows_P = torch.arange(len(x_ND), device=x_ND.device).repeat_interleave(values_NK.shape[1])
    features_P, values_P = features_NK.flatten(), values_NK.flatten()
    active_P = values_P > 0
    if usable.suits(x_ND, encoder.W_enc):
        slots = Slots(rows_P, features_P, len(x_ND), len(encoder.b_enc), active_P)
        return slots, torch.where(active_P, values_P, 0)
    if not active_P.all():
        rows_P, features_P, values_P = rows_P[active_P], features_P[active_P], values_P[active_P]
    return Pairs(rows_P, features_P, len(x_ND), len(encoder.b_enc)), values_P


@torch.no_grad()
def batch_topk_pairs(encoder: Encoder, x_ND: Tensor, k: int, group: Group = ALONE) -> tuple[Pairs, Tensor]:
    """The k * N largest features of the whole batch, those of them that are positive (arXiv 2412.06410).

    With several processes `x_ND` is one's share, and so are the pairs.
    """
    count = k * len(x_ND) * group.size
    # several processes exchange the values of their pairs, and have to know how many these are
    if group.size == 1 and usable.suits(x_ND, encoder.W_enc):
        from steer.kernels.gpu import batch as gpu_batch

        pre_NF = linear(x_ND, encoder.W_enc, encoder.b_enc)
        values_P, rows_P, features_P, starts_N = gpu_batch.largest(pre_NF, count)
        return Slots(rows_P, features_P, len(x_ND), len(encoder.b_enc), values_P > 0, starts_N), values_P
    rows_P, features_P, values_P = above(encoder, x_ND, likely_bound(encoder, x_ND, k, group))
    all_P, first = group.gather(values_P)
    if len(all_P) < count:  # too few: the bound was too high
        rows_P, features_P, values_P = above(encoder, x_ND, x_ND.new_zeros(()))
        all_P, first = group.gather(values_P)
    if len(all_P) > count:
        # in the order of the rows again
        largest_P = all_P.topk(count, sorted=False).indices.sort().values
        if group.size > 1:
            largest_P = largest_P[(largest_P >= first) & (largest_P < first + len(values_P))] - first
        rows_P, features_P, values_P = rows_P[largest_P], features_P[largest_P], values_P[largest_P]
    return Pairs(rows_P, features_P, len(x_ND), len(encoder.b_enc)), values_P


def likely_bound(encoder: Encoder, x_ND: Tensor, k: int, group: Group = ALONE) -> Tensor:
    """A positive number that probably a few more than k features a row exceed: what 1.25 k do in some 256 rows."""
    some_ND = x_ND[:: max(1, len(x_ND) * group.size // 256)]
    flat = linear(some_ND, encoder.W_enc, encoder.b_enc).flatten()
    return group.mean(topk(flat, min(len(some_ND) * k * 5 // 4 + 1, len(flat)))[0].amin().clamp(min=0))


def above(encoder: Encoder, x_ND: Tensor, bound: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, ids and values of all features that exceed a bound, row by row."""
    rows, features, values, done = [], [], [], 0
    for chunk_ND in chunks(x_ND, len(encoder.b_enc)):
        pre_NF = linear(chunk_ND, encoder.W_enc, encoder.b_enc)
        rows_P, features_P = (pre_NF > bound).nonzero(as_tuple=True)
        rows.append(rows_P + done)
        features.append(features_P)
        values.append(pre_NF[rows_P, features_P])
        done += len(chunk_ND)
    return torch.cat(rows), torch.cat(features), torch.cat(values)
