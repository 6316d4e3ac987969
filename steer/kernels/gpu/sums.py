"""Sums of a few rows of a matrix, times their values: the sparse decoder, and the gradients of its weights and values.

A program sums the rows that `ids` name from `starts[n]` to before `starts[n + 1]`, for a block of the columns. Programs
of one block of columns follow each other, so that the part of the matrix that they read stays in the L2 cache. Sums are
formed in fp32 and always in the same order: results are the same in each run.

Checked by Triton's interpreter on the CPU and compiled for sm_80 and sm_90, but not yet run on a GPU.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from steer.kernels.gpu.launch import next_power, on

SHORT, LONG = (8, 1), (32, 4)
"""(rows that are read at once, warps) where most sums are of some ten rows, and where some are of thousands."""


@triton.jit
def sums_kernel(
    starts_ptr,
    ids_ptr,
    values_ptr,
    source_ptr,
    bias_ptr,
    out_ptr,
    width,
    stride,
    k,
    TILE: tl.constexpr,
    BLOCK: tl.constexpr,
    RAGGED: tl.constexpr,
    HAS_BIAS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    in_width = columns < width
    if RAGGED:
        begin = tl.load(starts_ptr + row)
        end = tl.load(starts_ptr + row + 1)
    else:
        begin = row * k
        end = begin + k
    sums = tl.zeros([BLOCK], tl.float32)
    first = begin
    while first < end:
        places = first + tl.arange(0, TILE)
        inside = places < end
        ids = tl.load(ids_ptr + places, mask=inside, other=0).to(tl.int64)
        values = tl.load(values_ptr + places, mask=inside, other=0.0).to(tl.float32)
        rows = tl.load(
            source_ptr + ids[:, None] * stride + columns[None, :],
            mask=inside[:, None] & in_width[None, :],
            other=0.0,
        )
        sums += tl.sum(values[:, None] * rows.to(tl.float32), axis=0)
        first += TILE
    if HAS_BIAS:
        sums += tl.load(bias_ptr + columns, mask=in_width, other=0.0).to(tl.float32)
    tl.store(out_ptr + row * width + columns, sums.to(out_ptr.dtype.element_ty), mask=in_width)


@triton.jit
def dots_kernel(
    starts_ptr,
    ids_ptr,
    x_ptr,
    source_ptr,
    dots_ptr,
    width,
    x_stride,
    stride,
    k,
    TILE: tl.constexpr,
    BLOCK: tl.constexpr,
    RAGGED: tl.constexpr,
):
    """The products of row n of x with the rows that `ids` name from `starts[n]` on."""
    row = tl.program_id(0).to(tl.int64)
    if RAGGED:
        begin = tl.load(starts_ptr + row)
        end = tl.load(starts_ptr + row + 1)
    else:
        begin = row * k
        end = begin + k
    first = begin
    while first < end:
        places = first + tl.arange(0, TILE)
        inside = places < end
        ids = tl.load(ids_ptr + places, mask=inside, other=0).to(tl.int64)
        dots = tl.zeros([TILE], tl.float32)
        column = 0
        while column < width:
            columns = column + tl.arange(0, BLOCK)
            in_width = columns < width
            x = tl.load(x_ptr + row * x_stride + columns, mask=in_width, other=0.0).to(tl.float32)
            rows = tl.load(
                source_ptr + ids[:, None] * stride + columns[None, :],
                mask=inside[:, None] & in_width[None, :],
                other=0.0,
            )
            dots += tl.sum(x[None, :] * rows.to(tl.float32), axis=1)
            column += BLOCK
        tl.store(dots_ptr + places, dots.to(dots_ptr.dtype.element_ty), mask=inside)
        first += TILE


def sums(
    ids_P: Tensor,
    values_P: Tensor,
    source_FD: Tensor,
    *,
    k: int | None = None,
    starts_N: Tensor | None = None,
    bias_D: Tensor | None = None,
    shape: tuple[int, int] = SHORT,
) -> Tensor:
    """[N, D]: for each n the sum of the rows of `source_FD` that `ids_P` names there, times `values_P`.

    There are k for each n, or from `starts_N[n]` to before `starts_N[n + 1]`. Bytes: P rows of D numbers from the L2
    cache, and N rows written.
    """
    source_FD, ids_P, values_P = rows_together(source_FD), ids_P.contiguous(), values_P.contiguous()
    rows = len(starts_N) - 1 if starts_N is not None else len(ids_P) // (k or 1)
    width = source_FD.shape[1]
    out_ND = source_FD.new_empty(rows, width)
    block = next((size for size in (512, 256, 128) if width % size == 0), min(256, next_power(width)))
    if rows and width:
        with on(source_FD):
            sums_kernel[(rows, -(-width // block))](
                starts_N,
                ids_P,
                values_P,
                source_FD,
                bias_D,
                out_ND,
                width,
                source_FD.stride(0),
                k or 0,
                TILE=shape[0],
                BLOCK=block,
                RAGGED=starts_N is not None,
                HAS_BIAS=bias_D is not None,
                num_warps=shape[1],
            )
    return out_ND


def dots(
    x_ND: Tensor, ids_P: Tensor, source_FD: Tensor, *, k: int | None = None, starts_N: Tensor | None = None
) -> Tensor:
    """[P]: the product of each row of `x_ND` with the rows of `source_FD` that `ids_P` names there, as in `sums`.

    Where `starts_N` leaves places out they hold 0.
    """
    x_ND, source_FD, ids_P = rows_together(x_ND), rows_together(source_FD), ids_P.contiguous()
    make = torch.empty if starts_N is None else torch.zeros
    dots_P = make(len(ids_P), dtype=source_FD.dtype, device=x_ND.device)
    width = source_FD.shape[1]
    if len(ids_P) and len(x_ND):
        with on(x_ND):
            dots_kernel[(len(x_ND),)](
                starts_N,
                ids_P,
                x_ND,
                source_FD,
                dots_P,
                width,
                x_ND.stride(0),
                source_FD.stride(0),
                k or 0,
                TILE=4,
                BLOCK=min(1024, next_power(width)),
                RAGGED=starts_N is not None,
                num_warps=4,
            )
    return dots_P


def rows_together(x_ND: Tensor) -> Tensor:
    return x_ND if x_ND.stride(1) == 1 else x_ND.contiguous()


def by_id(ids_P: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Places in the order of their ids, equal ones in their own order, and where each of the ids begins [count + 1].

    Ids of `count` and above come last. One radix sort on the device, of 32-bit keys: nothing is waited for.
    """
    sorted_P, order_P = torch.sort(ids_P.int(), stable=True)
    bounds_F = torch.arange(count + 1, dtype=torch.int32, device=ids_P.device)
    return order_P, torch.searchsorted(sorted_P, bounds_F)


class Decode(torch.autograd.Function):
    """`decode` with gradients for values, weights and bias."""

    @staticmethod
    def forward(ctx: Any, values_NK: Tensor, indices_NK: Tensor, W_FD: Tensor, bias_D: Tensor | None) -> Tensor:
        ctx.save_for_backward(values_NK, indices_NK, W_FD)
        return sums(indices_NK.flatten(), values_NK.flatten(), W_FD, k=values_NK.shape[1], bias_D=bias_D)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        values_NK, indices_NK, W_FD = ctx.saved_tensors
        (grad_ND,), (rows, k) = grads, values_NK.shape
        grad_NK = grad_FD = grad_D = None
        if ctx.needs_input_grad[0]:
            grad_NK = dots(grad_ND, indices_NK.flatten(), W_FD, k=k).view(rows, k)
        if ctx.needs_input_grad[2]:
            order_P, starts_F = by_id(indices_NK.flatten(), len(W_FD))
            grad_FD = sums(order_P // k, values_NK.flatten()[order_P], grad_ND, starts_N=starts_F, shape=LONG)
        if ctx.needs_input_grad[3]:
            grad_D = grad_ND.sum(0)
        return grad_NK, None, grad_FD, grad_D


def decode(values_XK: Tensor, indices_XK: Tensor, W_FD: Tensor, bias_D: Tensor | None = None) -> Tensor:
    """The sum of rows of `W_FD` [..., D] by their ids `indices_XK`, each times its value, and the bias."""
    k = values_XK.shape[-1]
    given = values_XK.reshape(-1, k), indices_XK.reshape(-1, k), W_FD, bias_D
    learns = torch.is_grad_enabled() and any(one is not None and one.requires_grad for one in given)
    if learns:
        out_ND = Decode.apply(*given)
    else:
        out_ND = sums(given[1].flatten(), given[0].flatten(), W_FD.detach(), k=k, bias_D=bias_D)
    return out_ND.view(*values_XK.shape[:-1], W_FD.shape[1])
