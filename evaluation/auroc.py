"""AUROC of many scores for many classes at once: exact, ties count half."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def average_ranks(scores_NF: Tensor) -> Tensor:
    """Ranks [N, F] from 1 within each column; equal scores share the mean of their ranks."""
    scores_FN = scores_NF.T.contiguous()
    sorted_FN = scores_FN.sort(dim=1).values
    below_FN = torch.searchsorted(sorted_FN, scores_FN)
    up_to_FN = torch.searchsorted(sorted_FN, scores_FN, right=True)
    return (below_FN + up_to_FN + 1).T.double() / 2


def auroc(scores_NF: Tensor, members_CN: Tensor, block: int = 256) -> Tensor:
    """AUROC [C, F] of each column of scores for each class, from the sum of its members' ranks (Mann and Whitney).

    `members_CN` says which of the N belong to a class, all others are its counterexamples; NaN for a class that has
    all or none. Columns are ranked `block` at a time, which bounds memory at some N * block doubles.
    """
    return torch.cat([of_ranks(average_ranks(some_NF), members_CN) for some_NF in scores_NF.split(block, dim=1)], dim=1)


def of_ranks(ranks_NF: Tensor, members_CN: Tensor) -> Tensor:
    """AUROC [C, F] of columns whose `average_ranks` these are."""
    members_CN = members_CN.double()
    positives_C1 = members_CN.sum(1, keepdim=True)
    pairs_C1 = positives_C1 * (len(ranks_NF) - positives_C1)
    return (members_CN @ ranks_NF - positives_C1 * (positives_C1 + 1) / 2) / pairs_C1


def best_by_chance(scores_NF: Tensor, positives: Sequence[int], shuffles: int = 200, block: int = 256) -> Tensor:
    """The AUROC [P, shuffles] of the best column for classes that are drawn at random.

    `positives` are numbers of members; what the best of all columns reaches by chance depends on nothing else of a
    class whose labels are shuffled. NaN for a class of all or none.
    """
    generator = torch.Generator().manual_seed(0)
    order_SN = torch.rand(shuffles, len(scores_NF), generator=generator).argsort(1).argsort(1)
    best_PS = torch.full((len(positives), shuffles), -torch.inf, dtype=torch.float64)
    for columns_NF in scores_NF.split(block, dim=1):
        ranks_NF = average_ranks(columns_NF)
        for row, count in enumerate(positives):
            best_PS[row] = best_PS[row].maximum(of_ranks(ranks_NF, order_SN < count).amax(1))
    return best_PS
