"""AUROC of many scores for many classes at once: exact, ties count half."""

from __future__ import annotations

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
    members_CN = members_CN.double()
    positives_C1 = members_CN.sum(1, keepdim=True)
    pairs_C1 = positives_C1 * (len(scores_NF) - positives_C1)
    lowest_C1 = positives_C1 * (positives_C1 + 1) / 2
    return torch.cat(
        [
            (members_CN @ average_ranks(columns_NF) - lowest_C1) / pairs_C1
            for columns_NF in scores_NF.split(block, dim=1)
        ],
        dim=1,
    )
