"""The kernels in plain torch: any leading axes, device and floating dtype, with gradients.

On a CPU large fresh temporaries cost page faults, so all that is wide is done by `chunks` of rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from steer.matmul import LARGE, backend, linear, suits_onednn

NUMBERS = 6 * 2**20
"""The most numbers in the widest temporary, on a CPU: fresh memory of more than 32 MB is paid for at every call."""
ROWS = 1024
"""The most rows at a time, on a CPU."""
SPARSE = 1 / 20
"""The share of active features up to which gathering their rows beats a dense product (measured with oneDNN)."""
FEW = 64
"""So many features are multiplied without a look at which are active."""


def chunks(x_ND: Tensor, width: int) -> Iterator[Tensor]:
    """Rows in pieces that are taken through a whole computation, `width` numbers a row at its widest, on a CPU.

    Elsewhere all rows at once.
    """
    rows = min(ROWS, max(1, NUMBERS // width))
    if x_ND.device.type != "cpu" or x_ND.shape[0] <= rows:
        return iter([x_ND])
    return iter(x_ND.split(rows))


# --- top-k ---


def topk(x_XF: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each vector and where they stand, in no order; of equal ones any. As `torch.topk`, faster.

    On a CPU a vector is cut into blocks, and only the k blocks with the largest maxima are looked into: k numbers as
    large as any left out are there. Those blocks are found in the same way, by blocks of blocks.
    """
    count, shares = x_XF.shape[-1], [8]
    if not x_XF.is_cpu or count < 16 * k:
        return x_XF.topk(min(k, count), dim=-1, sorted=False)
    while count // math.prod(shares) >= 8 * k:
        shares.append(4)
    whole = count - count % math.prod(shares)
    with torch.no_grad():
        levels = [x_XF[..., :whole]]
        for share in shares:
            # strided blocks, so that a maximum is taken over whole vectors
            levels.append(levels[-1].unflatten(-1, (share, -1)).amax(-2))
        blocks = levels[-1].shape[-1]
        places_XK = levels[-1].topk(k, dim=-1, sorted=False).indices
        for level in reversed(levels[:-1]):
            inside = torch.arange(0, level.shape[-1], blocks)
            places_XC = (places_XK.unsqueeze(-1) + inside).flatten(-2)
            blocks = level.shape[-1]
            if blocks == whole < count:  # what fills no block
                rest = torch.arange(whole, count).expand(*x_XF.shape[:-1], -1)
                level, places_XC = x_XF, torch.cat([places_XC, rest], dim=-1)
            best_XK = level.gather(-1, places_XC).topk(k, dim=-1, sorted=False).indices
            places_XK = places_XC.gather(-1, best_XK)
    return x_XF.gather(-1, places_XK), places_XK


def kth_at_least(x_NF: Tensor, k: int) -> Tensor:
    """Numbers [N] that are at most the k-th largest of each row, mostly a little less: that of its blocks' maxima."""
    count = x_NF.shape[-1]
    width = max(1, count // (3 * k))
    return x_NF[:, : count - count % width].unflatten(-1, (width, -1)).amax(-2).topk(min(k, count), -1)[0].amin(-1)


# --- few features a row ---


def decode(values_XK: Tensor, indices_XK: Tensor, W_FD: Tensor, bias_D: Tensor | None = None) -> Tensor:
    """The sum of rows of `W_FD` [..., D] by their ids `indices_XK`, each times its value, and the bias."""
    count = values_XK.shape[-1]
    flat_NK = indices_XK.reshape(-1, count)
    out_ND = F.embedding_bag(flat_NK, W_FD, mode="sum", per_sample_weights=values_XK.reshape(-1, count))
    out_XD = out_ND.view(*values_XK.shape[:-1], W_FD.shape[1])
    return out_XD if bias_D is None else out_XD + bias_D


def decode_dense(f_XF: Tensor, W_FD: Tensor, b_D: Tensor | None) -> Tensor:
    """f W + b [..., D]; where few features are active only their rows are touched."""
    if not may_be_sparse(f_XF, W_FD):
        return linear(f_XF, W_FD, b_D)
    parts = [decode_chunk(chunk_NF, W_FD, b_D) for chunk_NF in chunks(f_XF.reshape(-1, len(W_FD)), len(W_FD))]
    return (parts[0] if len(parts) == 1 else torch.cat(parts)).view(*f_XF.shape[:-1], W_FD.shape[1])


def decode_chunk(f_NF: Tensor, W_FD: Tensor, b_D: Tensor | None) -> Tensor:
    if int(f_NF.count_nonzero()) > SPARSE * f_NF.numel():
        return linear(f_NF, W_FD, b_D)
    rows_P, features_P = f_NF.nonzero(as_tuple=True)
    out_ND = bags(W_FD, rows_P, features_P, f_NF[rows_P, features_P], len(f_NF))
    return out_ND if b_D is None else out_ND.add_(b_D)


def may_be_sparse(f_XF: Tensor, W_FD: Tensor) -> bool:
    count, width = W_FD.shape
    if count <= FEW or f_XF.numel() * width < LARGE:
        return False
    # on a GPU the count would have to be waited for; gradients to inactive features need the dense product
    return f_XF.is_cpu and not (torch.is_grad_enabled() and f_XF.requires_grad)


def plus_decoded(x_XD: Tensor, f_XF: Tensor, W_FD: Tensor) -> Tensor:
    """x + f W [..., D] in one product, where there are not so many features that most of them may be inactive.

    Where the product is of fewer digits than x, only it is rounded.
    """
    if x_XD.dtype != W_FD.dtype or torch.is_autocast_enabled(x_XD.device.type):
        return x_XD + decode_dense(f_XF, W_FD, None)
    if may_be_sparse(f_XF, W_FD):
        return decode_dense(f_XF, W_FD, None).add_(x_XD)
    if suits_onednn(f_XF, W_FD, x_XD) and backend() == "oneDNN":
        return torch.ops.mkldnn._linear_pointwise.binary(f_XF.contiguous(), x_XD.contiguous(), W_FD.T, None, "add")
    return torch.addmm(x_XD.reshape(-1, x_XD.shape[-1]), f_XF.reshape(-1, len(W_FD)), W_FD).view(x_XD.shape)


def bags(W_FD: Tensor, rows_P: Tensor, features_P: Tensor, values_P: Tensor, count: int) -> Tensor:
    """Sums over (row, feature, value) in the order of their rows: [count, D], row n being of value * W[feature]."""
    count_N = torch.bincount(rows_P, minlength=count)
    return F.embedding_bag(features_P, W_FD, count_N.cumsum(0) - count_N, mode="sum", per_sample_weights=values_P)
