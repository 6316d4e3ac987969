"""What an SAE's time goes into: the encoder's product, top-k, and the decoder's product with few features a row.

On a CPU the temporaries of a few hundred rows stay in its cache, and large fresh ones cost page faults besides, so all
that is wide is done by `chunks` of rows. Everything here is plain torch, takes any leading axes, device and floating
dtype, and has gradients. GPUs run the same functions with torch's own kernels; where one of their own pays, it belongs
in `encode_topk` and `decode`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ROWS = 512
"""Rows that are taken through a whole computation before the next, on a CPU."""
WORTH_PROBING = 2**22
"""Multiplications below which starting another library costs more than it gains."""
SPARSE = 1 / 16
"""The share of active features up to which gathering their rows beats a dense product (measured; about 1/10)."""


def chunks(x_ND: Tensor, wide: bool = False) -> Iterator[Tensor]:
    """Rows in pieces that a CPU's cache holds (smaller where the dictionary is `wide`); all at once elsewhere."""
    if x_ND.device.type != "cpu" or x_ND.shape[0] <= ROWS:
        return iter([x_ND])
    return iter(x_ND.split(ROWS // 2 if wide else ROWS))


# --- x W + b ---


def linear(x_XD: Tensor, W_DF: Tensor, b_F: Tensor) -> Tensor:
    """x W + b [..., F], by the fastest kernel of true precision that this processor has (`backend`)."""
    x_ND = x_XD.reshape(-1, x_XD.shape[-1])
    product = onednn if suits_onednn(x_ND, W_DF, b_F) and backend() == "oneDNN" else plain
    return product(x_ND, W_DF, b_F).view(*x_XD.shape[:-1], W_DF.shape[1])


def plain(x_ND: Tensor, W_DF: Tensor, b_F: Tensor) -> Tensor:
    return torch.addmm(b_F, x_ND, W_DF)


def onednn(x_ND: Tensor, W_DF: Tensor, b_F: Tensor) -> Tensor:
    """fp32 throughout. Torch's builds multiply fp32 by MKL, which on some processors takes twice as long."""
    return torch.ops.mkldnn._linear_pointwise(x_ND.contiguous(), W_DF.T, b_F, "none", [], "")


def suits_onednn(x_ND: Tensor, W_DF: Tensor, b_F: Tensor) -> bool:
    """Whether the product is one that the private operator does: large, fp32, on the CPU, without gradient."""
    return (
        x_ND.shape[0] * W_DF.numel() >= WORTH_PROBING
        and all(type(t) in (Tensor, nn.Parameter) and t.is_cpu and t.dtype == torch.float32 for t in (x_ND, W_DF, b_F))
        and (W_DF.is_contiguous() or W_DF.T.is_contiguous())
        and not (torch.is_grad_enabled() and (x_ND.requires_grad or W_DF.requires_grad or b_F.requires_grad))
        and not torch.compiler.is_compiling()
        and bool(torch.backends.mkldnn.enabled)
    )


@cache
def backend() -> str:
    """`oneDNN` where torch has that operator and it is right and clearly faster on this processor, else `addmm`.

    Found out once, at the first product that is large enough.
    """
    return probe(onednn)


@torch.no_grad()
def probe(other: Callable[[Tensor, Tensor, Tensor], Tensor]) -> str:
    """`oneDNN` if `other` keeps fp32's precision and takes less time than `plain`, both tried in turn."""
    generator = torch.Generator().manual_seed(0)
    x_ND, W_FD, b_F = (torch.randn(*shape, generator=generator) for shape in ((256, 384), (1536, 384), (1536,)))
    inputs = (x_ND, W_FD.T, b_F)
    exact = plain(*(one.double() for one in inputs))
    try:
        if float((other(*inputs) - exact).abs().max()) > 4 * float((plain(*inputs) - exact).abs().max()):
            return "addmm"
    except (AttributeError, RuntimeError, NotImplementedError):  # a build of torch without it
        return "addmm"
    seconds = [(took(other, *inputs), took(plain, *inputs)) for _ in range(7)]
    theirs, ours = (min(column) for column in zip(*seconds, strict=True))
    return "oneDNN" if theirs < 0.9 * ours else "addmm"


def took(product: Callable[[Tensor, Tensor, Tensor], Tensor], *inputs: Tensor) -> float:
    start = time.perf_counter()
    product(*inputs)
    return time.perf_counter() - start


# --- top-k ---


def topk(x_XF: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each vector and where they stand, in no order; of equal ones any. As `torch.topk`, faster.

    On a CPU only the k blocks with the largest maxima are looked into: k numbers as large as any left out are there.
    """
    count = x_XF.shape[-1]
    width = 16 if count >= 256 * k else 8
    if not x_XF.is_cpu or count < 16 * k:
        return x_XF.topk(min(k, count), dim=-1, sorted=False)
    with torch.no_grad():
        # strided blocks, so that a maximum is taken over whole vectors; what does not fill a block is looked at too
        blocks = count // width
        largest_XG = x_XF[..., : blocks * width].unflatten(-1, (width, blocks)).amax(-2)
        within_XK = largest_XG.topk(k, dim=-1, sorted=False).indices
        places_XC = (within_XK.unsqueeze(-1) + torch.arange(0, blocks * width, blocks)).flatten(-2)
        if count % width:
            rest = torch.arange(blocks * width, count).expand(*x_XF.shape[:-1], -1)
            places_XC = torch.cat([places_XC, rest], dim=-1)
        best_XK = x_XF.gather(-1, places_XC).topk(k, dim=-1, sorted=False).indices
        indices_XK = places_XC.gather(-1, best_XK)
    return x_XF.gather(-1, indices_XK), indices_XK


def encode_topk(x_XD: Tensor, W_DF: Tensor, b_F: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of x W + b [..., k] and their ids; nothing of size [..., F] is made."""
    x_ND, wide = x_XD.reshape(-1, x_XD.shape[-1]), W_DF.shape[1] > 8192
    parts = [topk(linear(chunk_ND, W_DF, b_F), k) for chunk_ND in chunks(x_ND, wide)]
    values_NK, indices_NK = parts[0] if len(parts) == 1 else map(torch.cat, zip(*parts, strict=True))
    shape = (*x_XD.shape[:-1], values_NK.shape[-1])
    return values_NK.view(shape), indices_NK.view(shape)


# --- few features a row ---


def decode(values_XK: Tensor, indices_XK: Tensor, W_FD: Tensor) -> Tensor:
    """The sum of rows of `W_FD` [..., D] by their ids `indices_XK`, each times its value."""
    count = values_XK.shape[-1]
    flat_NK = indices_XK.reshape(-1, count)
    out_ND = F.embedding_bag(flat_NK, W_FD, mode="sum", per_sample_weights=values_XK.reshape(-1, count))
    return out_ND.view(*values_XK.shape[:-1], W_FD.shape[1])


def decode_dense(f_XF: Tensor, W_FD: Tensor, b_D: Tensor) -> Tensor:
    """f W + b [..., D]; where few features are active only their rows are touched."""
    f_NF = f_XF.reshape(-1, f_XF.shape[-1])
    parts = [decode_chunk(chunk_NF, W_FD, b_D) for chunk_NF in chunks(f_NF)]
    return (parts[0] if len(parts) == 1 else torch.cat(parts)).view(*f_XF.shape[:-1], W_FD.shape[1])


def decode_chunk(f_NF: Tensor, W_FD: Tensor, b_D: Tensor) -> Tensor:
    small = f_NF.numel() * W_FD.shape[1] < WORTH_PROBING
    # on a GPU the count would have to be waited for, and gradients to inactive features need the dense product
    if small or not f_NF.is_cpu or (torch.is_grad_enabled() and f_NF.requires_grad):
        return linear(f_NF, W_FD, b_D)
    if int(f_NF.count_nonzero()) > SPARSE * f_NF.numel():
        return linear(f_NF, W_FD, b_D)
    rows_P, features_P = f_NF.nonzero(as_tuple=True)
    return bags(W_FD, rows_P, features_P, f_NF[rows_P, features_P], len(f_NF)).add_(b_D)


def bags(W_FD: Tensor, rows_P: Tensor, features_P: Tensor, values_P: Tensor, count: int) -> Tensor:
    """Sums over (row, feature, value) in the order of their rows: [count, D], row n being of value * W[feature]."""
    return F.embedding_bag(features_P, W_FD, starts(rows_P, count), mode="sum", per_sample_weights=values_P)


def starts(sorted_P: Tensor, count: int) -> Tensor:
    """Where the entries of each of 0 .. count - 1 begin in a sorted list of them."""
    counts = torch.bincount(sorted_P, minlength=count)
    return counts.cumsum(0) - counts
