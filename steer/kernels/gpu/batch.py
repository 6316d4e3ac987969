"""The largest positive numbers of a whole batch, row by row, without waiting for the GPU (BatchTopK in training).

How many pass in a row is not known beforehand, but in the batch exactly `count` do, so that all results have a fixed
size. The smallest that passes is found by counting: of positive numbers in fp32 the upper 16 bits say which of 2^15
bins they are in, then the lower 16 bits where in the bin (of bfloat16 there are none). Numbers below a bound from some
rows are left out of the counts; if that leaves too few, a second pass counts them too, else it reads nothing.

NaN does not pass. Of equal numbers the first ones of the batch pass. Sums are not involved: results are the same in
each run.

Checked by Triton's interpreter on the CPU and compiled for sm_80 and sm_90, but not yet run on a GPU.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from steer.kernels.gpu.launch import on

UPPER, LOWER = 2**15, 2**16
"""Bins of positive numbers by their upper 16 bits (the sign is 0), and within one by their lower 16 bits."""
SAMPLE = 256
"""Rows that the bound is taken from."""
TILE, WARPS = 2048, 4


@triton.jit
def bits_of(x):
    """Integers in the order of the positive numbers; 0 for all others, and for NaN."""
    x = x.to(tl.float32)
    return tl.where(x > 0, x.to(tl.int32, bitcast=True), 0)


@triton.jit
def count_kernel(
    x_ptr, bins_ptr, bound_ptr, counted_ptr, enough, width, stride, PART: tl.constexpr, TILE: tl.constexpr
):
    """Count the numbers of a row in bins. PART 0: by upper bits, those from the bound's bin on. PART 1: those below it,
    if fewer than `enough` were counted. PART 2: by lower bits, those in the bound's bin."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * TILE + tl.arange(0, TILE)
    bound = tl.load(bound_ptr)
    inside = columns < width
    if PART == 1:
        inside = inside & (tl.load(counted_ptr) < enough)
    bits = bits_of(tl.load(x_ptr + row * stride + columns, mask=inside, other=0.0))
    upper = bits >> 16
    if PART == 0:
        tl.atomic_add(bins_ptr + upper, 1, mask=(bits > 0) & (upper >= bound), sem="relaxed")
    if PART == 1:
        tl.atomic_add(bins_ptr + upper, 1, mask=(bits > 0) & (upper < bound), sem="relaxed")
    if PART == 2:
        tl.atomic_add(bins_ptr + (bits & 0xFFFF), 1, mask=(bits > 0) & (upper == bound), sem="relaxed")


@triton.jit
def sizes_kernel(x_ptr, least_ptr, above_ptr, equal_ptr, width, stride, TILE: tl.constexpr):
    """How many numbers of a row exceed `least`, and how many are equal to it."""
    row = tl.program_id(0).to(tl.int64)
    least = tl.load(least_ptr)
    above = tl.zeros([TILE], tl.int32)
    equal = tl.zeros([TILE], tl.int32)
    first = 0
    while first < width:
        columns = first + tl.arange(0, TILE)
        bits = bits_of(tl.load(x_ptr + row * stride + columns, mask=columns < width, other=0.0))
        above += (bits > least).to(tl.int32)
        equal += ((bits == least) & (bits > 0)).to(tl.int32)
        first += TILE
    tl.store(above_ptr + row, tl.sum(above, axis=0))
    tl.store(equal_ptr + row, tl.sum(equal, axis=0))


@triton.jit
def write_kernel(
    x_ptr, least_ptr, ties_ptr, starts_ptr, values_ptr, rows_ptr, ids_ptr, width, stride, TILE: tl.constexpr
):
    """Write those of a row that exceed `least`, and the first `ties` of those that are equal to it."""
    row = tl.program_id(0).to(tl.int64)
    least = tl.load(least_ptr)
    ties = tl.load(ties_ptr + row)
    start = tl.load(starts_ptr + row)
    end = tl.load(starts_ptr + row + 1)
    first = 0
    while (first < width) & (start < end):
        columns = first + tl.arange(0, TILE)
        x = tl.load(x_ptr + row * stride + columns, mask=columns < width, other=0.0)
        bits = bits_of(x)
        equal = ((bits == least) & (bits > 0)).to(tl.int32)
        kept = ((bits > least) | ((equal > 0) & (tl.cumsum(equal, axis=0) <= ties))).to(tl.int32)
        place = start + tl.cumsum(kept, axis=0) - 1
        tl.store(values_ptr + place, x, mask=kept > 0)
        tl.store(rows_ptr + place, tl.zeros([TILE], tl.int64) + row, mask=kept > 0)
        tl.store(ids_ptr + place, columns.to(tl.int64), mask=kept > 0)
        start += tl.sum(kept, axis=0)
        ties = tl.maximum(ties - tl.sum(equal, axis=0), 0)
        first += TILE


def reached(bins_B: Tensor, count: int | Tensor) -> tuple[Tensor, Tensor]:
    """The bin in which the `count` largest numbers end, and how many lie in the bins above it.

    The bin is -1, with all numbers above it, where there are not so many.
    """
    from_top_B = bins_B.flip(0).cumsum(0)
    before = (from_top_B < count).sum()
    above = from_top_B.gather(0, (before - 1).clamp(min=0).view(1))[0] * (before > 0)
    return len(bins_B) - 1 - before, above


def counted(
    x_NF: Tensor, bins_B: Tensor, part: int, bound: Tensor, known: Tensor | None = None, enough: int = 0
) -> None:
    """Count in `bins_B`, in place, as `count_kernel` says."""
    grid = (len(x_NF), triton.cdiv(x_NF.shape[1], TILE))
    width, stride = x_NF.shape[1], x_NF.stride(0)
    count_kernel[grid](x_NF, bins_B, bound, known, enough, width, stride, PART=part, TILE=TILE, num_warps=WARPS)


@torch.no_grad()
def largest(x_NF: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The `count` largest positive numbers of all rows: values, rows, columns [count], and where rows begin [N + 1].

    They are in the order of the rows. Where there are fewer, values of 0 fill the rest, which belongs to no row.

    Bytes: in fp32 four reads, in bfloat16 three; the counts are 0.4 MB, and few numbers are counted.
    """
    rows, width = x_NF.shape
    device = x_NF.device
    values_P = x_NF.new_zeros(count)
    rows_P = torch.zeros(count, dtype=torch.long, device=device)
    ids_P = torch.zeros(count, dtype=torch.long, device=device)
    starts_N = torch.zeros(rows + 1, dtype=torch.long, device=device)
    if not (rows and width and count):
        return values_P, rows_P, ids_P, starts_N
    x_NF = x_NF if x_NF.stride(1) == 1 else x_NF.contiguous()
    with on(x_NF):
        least, wanted = smallest(x_NF, count)
        above_N, equal_N = (torch.empty(rows, dtype=torch.int32, device=device) for _ in range(2))
        sizes_kernel[(rows,)](x_NF, least, above_N, equal_N, width, x_NF.stride(0), TILE=TILE, num_warps=WARPS)
        ties_N = torch.minimum((wanted - (equal_N.cumsum(0) - equal_N)).clamp(min=0), equal_N)
        torch.cumsum(above_N + ties_N, 0, out=starts_N[1:])
        write_kernel[(rows,)](
            x_NF,
            least,
            ties_N.int(),
            starts_N,
            values_P,
            rows_P,
            ids_P,
            width,
            x_NF.stride(0),
            TILE=TILE,
            num_warps=WARPS,
        )
    return values_P, rows_P, ids_P, starts_N


def smallest(x_NF: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The bits [1] of the smallest of the `count` largest positive numbers, and how many equal to it are among them.

    Both are 0 where there are fewer positive numbers: then all pass.
    """
    device = x_NF.device
    none = torch.zeros(1, dtype=torch.int32, device=device)
    some_MF = x_NF[:: max(1, len(x_NF) // SAMPLE)]
    sample_B = torch.zeros(UPPER, dtype=torch.int32, device=device)
    counted(some_MF, sample_B, 0, none)
    # a few more than the share of the sample
    bound = reached(sample_B, count * len(some_MF) * 5 // (4 * len(x_NF)) + 1)[0].clamp(min=0).int().view(1)

    bins_B = torch.zeros(UPPER, dtype=torch.int32, device=device)
    counted(x_NF, bins_B, 0, bound)
    counted(x_NF, bins_B, 1, bound, bins_B.sum().view(1), count)
    upper, above = reached(bins_B, count)
    if x_NF.dtype == torch.bfloat16:
        return (upper.clamp(min=0).int() << 16).view(1), torch.where(upper < 0, 0, count - above)
    lower_B = torch.zeros(LOWER, dtype=torch.int32, device=device)
    counted(x_NF, lower_B, 2, upper.int().view(1))
    lower, more = reached(lower_B, count - above)
    least = torch.where(upper < 0, 0, (upper << 16) + lower)
    return least.int().view(1), torch.where(upper < 0, 0, count - above - more)
