"""What an SAE's time goes into beside `steer.matmul`: top-k, and the decoder's product with few features a row.

`plain` is torch alone, on every device; on a GPU where Triton works (`usable`) the functions here take its kernels
instead. Both select the same numbers and sum in fp32 at least.
"""

from __future__ import annotations

import torch
from torch import Tensor

from steer.kernels import plain, usable
from steer.kernels.plain import NUMBERS, ROWS, bags, chunks, decode_dense, kth_at_least, plus_decoded
from steer.matmul import linear

LARGE = 2**17
"""Numbers from which a selection by three launches is taken; torch's is one (a guess, which was not measured)."""


def topk(x_XF: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each vector and where they stand, in no order; of equal ones any. As `torch.topk`, faster."""
    if x_XF.numel() >= LARGE and usable.suits(x_XF):
        from steer.kernels.gpu import topk as gpu_topk

        k = min(k, x_XF.shape[-1])
        if gpu_topk.takes(x_XF, k):
            values_XK, indices_XK = gpu_topk.topk(x_XF.detach(), k)
            learns = torch.is_grad_enabled() and x_XF.requires_grad
            return x_XF.gather(-1, indices_XK) if learns else values_XK, indices_XK
    return plain.topk(x_XF, k)


def encode_topk(x_XD: Tensor, W_DF: Tensor, b_F: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of x W + b [..., k] and their ids; nothing of size [..., F] is made."""
    x_ND = x_XD.reshape(-1, x_XD.shape[-1])
    parts = [topk(linear(chunk_ND, W_DF, b_F), k) for chunk_ND in chunks(x_ND, W_DF.shape[1])]
    values_NK, indices_NK = parts[0] if len(parts) == 1 else map(torch.cat, zip(*parts, strict=True))
    shape = (*x_XD.shape[:-1], values_NK.shape[-1])
    return values_NK.view(shape), indices_NK.view(shape)


def decode(values_XK: Tensor, indices_XK: Tensor, W_FD: Tensor, bias_D: Tensor | None = None) -> Tensor:
    """The sum of rows of `W_FD` [..., D] by their ids `indices_XK`, each times its value, and the bias."""
    same = values_XK.dtype == W_FD.dtype and (bias_D is None or bias_D.dtype == W_FD.dtype)
    if same and usable.suits(values_XK, indices_XK, W_FD, bias_D):
        from steer.kernels.gpu import sums as gpu_sums

        return gpu_sums.decode(values_XK, indices_XK, W_FD, bias_D)
    return plain.decode(values_XK, indices_XK, W_FD, bias_D)


__all__ = [
    "LARGE",
    "NUMBERS",
    "ROWS",
    "bags",
    "chunks",
    "decode",
    "decode_dense",
    "encode_topk",
    "kth_at_least",
    "plus_decoded",
    "topk",
]
