"""Frames in random order from memory or disk, in bounded memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from hooks.store import SiteFrames

Span = tuple[int, int]


def random_blocks(
    frames: int, held_out: float = 0.0, block: int = 1024, seed: int = 0
) -> tuple[list[Span], list[Span]]:
    """Cut 0..frames into blocks and put a random share of them aside: (blocks, held-out blocks).

    Frames beside each other are nearly the same: whole blocks are held out, so that few have a neighbour in the rest.
    """
    block = max(1, min(block, frames // 32))
    spans = [(start, min(start + block, frames)) for start in range(0, frames, block)]
    order = torch.randperm(len(spans), generator=torch.Generator().manual_seed(seed)).tolist()
    count = max(1, round(held_out * len(spans))) if held_out else 0
    aside = set(order[:count])
    return [s for i, s in enumerate(spans) if i not in aside], [s for i, s in enumerate(spans) if i in aside]


def shuffled(
    frames: Tensor | SiteFrames,
    spans: Sequence[Span],
    batch_size: int,
    *,
    seed: int = 0,
    start: int = 0,
    buffer: int = 2**16,
) -> Iterator[Tensor]:
    """Batches [batch_size, D] in random order without end, from batch `start` on; one epoch runs into the next.

    Blocks (`spans`) are read in random order into a buffer of about `buffer` frames and shuffled there. The order
    depends on `seed` only, so that a training that goes on sees the batches that it would have seen.
    """
    total = sum(end - begin for begin, end in spans)
    assert total > 0 and batch_size > 0
    epoch, skip = divmod(start * batch_size, total)
    rest = frames[0:0]
    for number in itertools.count(epoch):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
        order = torch.randperm(len(spans), generator=generator).tolist()
        while order:
            window, size = [], 0
            while order and size < buffer:
                window.append(spans[order.pop()])
                size += window[-1][1] - window[-1][0]
            permutation = torch.randperm(size, generator=generator)
            if skip >= size:
                skip -= size
                continue
            rows_ND = torch.cat([frames[begin:end] for begin, end in window])[permutation[skip:]]
            skip = 0
            rest = torch.cat([rest, rows_ND]) if len(rest) else rows_ND
            whole = len(rest) - len(rest) % batch_size
            yield from rest[:whole].split(batch_size) if whole else ()
            rest = rest[whole:]
