"""Exact top-k of rows in little more than one read, by blocks of 16 as `plain.topk` does it on a CPU.

One read gives the maxima of the blocks. The k blocks with the largest maxima hold k numbers as large as any left out,
so the second selection is among 16 k numbers. In each a program holds all numbers of its row in registers and finds the
k-th largest by bisection. Numbers are compared as integers in the same order, so that this ends after 32 counts (16 in
bfloat16), whatever the numbers are.

Of equal numbers any are taken, always the same ones. NaN is larger than any number, as for `torch.topk`.

Checked by Triton's interpreter on the CPU and compiled for sm_80 and sm_90, but not yet run on a GPU.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from steer.kernels.gpu.launch import next_power, on

BLOCK = 16
"""Numbers of a block: in bfloat16 the 32 bytes that a GPU reads at once."""
MOST, LONGEST = 512, 2**18
"""The largest k and the longest rows."""
PER_WARP = 512
"""Numbers of a row in a warp's registers: more would leave room for too few warps."""
SHIFTS = {torch.float32: 0, torch.float16: 13, torch.bfloat16: 16}
"""The low bits of a number in fp32 that are 0 because it is of fewer digits."""

NONE = tl.constexpr(-(2**31))
"""Where there is no number: below any key."""
LOWEST = tl.constexpr(1 - 2**31)


@triton.jit
def keys_of(x):
    """Integers in the order of the numbers; NaN above all."""
    bits = x.to(tl.float32).to(tl.int32, bitcast=True)
    return tl.where(x != x, 0x7FFFFFFF, bits ^ ((bits >> 31) & 0x7FFFFFFF))


@triton.jit
def maxima_kernel(x_ptr, maxima_ptr, count, blocks, stride, BLOCK: tl.constexpr, BLOCKS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1) * BLOCKS + tl.arange(0, BLOCKS)
    columns = block[:, None] * BLOCK + tl.arange(0, BLOCK)[None, :]
    inside = columns < count
    x = tl.load(x_ptr + row * stride + columns, mask=inside, other=0.0)
    keys = tl.max(tl.where(inside, keys_of(x), NONE), axis=1)
    maxima = (keys ^ ((keys >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)
    tl.store(maxima_ptr + row * blocks + block, maxima.to(maxima_ptr.dtype.element_ty), mask=block < blocks)


@triton.jit
def topk_kernel(
    x_ptr,
    blocks_ptr,
    values_ptr,
    indices_ptr,
    count,
    stride,
    k,
    SHIFT: tl.constexpr,
    BLOCK: tl.constexpr,
    TILE: tl.constexpr,
    BY_BLOCKS: tl.constexpr,
    HAS_VALUES: tl.constexpr,
):
    """A program for each row of `count` numbers; or of those in the k blocks that `blocks_ptr` names for it."""
    row = tl.program_id(0).to(tl.int64)
    here = tl.arange(0, TILE)
    if BY_BLOCKS:
        held = here < k * BLOCK
        columns = tl.load(blocks_ptr + row * k + here // BLOCK, mask=held, other=0) * BLOCK + here % BLOCK
        inside = held & (columns < count)
    else:
        columns = here
        inside = here < count
    x = tl.load(x_ptr + row * stride + columns, mask=inside, other=0.0)
    keys = tl.where(inside, keys_of(x) >> SHIFT, NONE)

    # at least k numbers reach `low`; fewer than k exceed it, or none are equal to it
    low = tl.full([], LOWEST >> SHIFT, tl.int32)
    high = tl.max(keys, axis=0)
    while low < high:
        # the mean rounded up, without overflow
        middle = (low | high) - ((low ^ high) >> 1)
        reach = tl.sum((keys >= middle).to(tl.int32), axis=0)
        low = tl.where(reach >= k, middle, low)
        high = tl.where(reach > k, high, tl.where(reach == k, middle, middle - 1))

    more = (keys > low).to(tl.int32)
    equal = (keys == low).to(tl.int32)
    wanted = k - tl.sum(more, axis=0)
    # how many there are up to each place, of both kinds in one sum
    both = tl.cumsum(more + (equal << 16), axis=0)
    equals = both >> 16
    place = (both & 0xFFFF) + tl.minimum(equals, wanted) - 1
    kept = (keys > low) | ((keys == low) & (equals <= wanted))
    if HAS_VALUES:
        tl.store(values_ptr + row * k + place, x, mask=kept)
    tl.store(indices_ptr + row * k + place, columns.to(indices_ptr.dtype.element_ty), mask=kept)


def takes(x_XF: Tensor, k: int) -> bool:
    """Whether `topk` takes rows of this length and a k of this size."""
    return 0 < k <= MOST and k <= x_XF.shape[-1] <= LONGEST


@torch.no_grad()
def topk(x_XF: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each vector and where they stand, in no order; without gradients.

    Bytes: each number is read once; of each block of 16 its maximum is written and read; k blocks are read again.
    """
    shape = (*x_XF.shape[:-1], k)
    x_NF = x_XF.reshape(-1, x_XF.shape[-1])
    x_NF = x_NF if x_NF.stride(1) == 1 else x_NF.contiguous()
    values_NK = x_NF.new_empty(len(x_NF), k)
    indices_NK = torch.empty(len(x_NF), k, dtype=torch.long, device=x_NF.device)
    if len(x_NF):
        with on(x_NF):
            select(x_NF, k, values_NK, indices_NK)
    return values_NK.view(shape), indices_NK.view(shape)


def select(x_NF: Tensor, k: int, values_NK: Tensor | None, indices_NK: Tensor) -> None:
    """Fill in the k largest of each row (if asked for) and where they stand."""
    rows, count = x_NF.shape
    blocks = -(-count // BLOCK)
    blocks_NK, held = None, count
    if blocks >= 2 * k:
        maxima_NB = x_NF.new_empty(rows, blocks)
        size = min(128, next_power(blocks))
        maxima_kernel[(rows, -(-blocks // size))](
            x_NF, maxima_NB, count, blocks, x_NF.stride(0), BLOCK=BLOCK, BLOCKS=size, num_warps=max(1, size // 32)
        )
        blocks_NK, held = torch.empty(rows, k, dtype=torch.int32, device=x_NF.device), k * BLOCK
        select(maxima_NB, k, None, blocks_NK)
    tile = max(32, next_power(held))
    topk_kernel[(rows,)](
        x_NF,
        blocks_NK,
        values_NK,
        indices_NK,
        count,
        x_NF.stride(0),
        k,
        SHIFT=SHIFTS[x_NF.dtype],
        BLOCK=BLOCK,
        TILE=tile,
        BY_BLOCKS=blocks_NK is not None,
        HAS_VALUES=values_NK is not None,
        num_warps=min(16, max(1, tile // PER_WARP)),
    )
