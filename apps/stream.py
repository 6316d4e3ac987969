"""The blocks of a file at another rate, and through a codec in chunks: `steer.stream` for sound that is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import soxr
import torch
from torch import Tensor

from steer.stream import Chunks, Plan, Process

CHUNK_S = 20.0


def resampled(blocks: Iterable[Tensor], source_rate: int, target_rate: int) -> Iterator[Tensor]:
    """Blocks [C, n] at another rate (soxr, high quality): the same samples as in one piece."""
    if source_rate == target_rate:
        yield from blocks
        return
    stream = None
    for block_CN in blocks:
        if stream is None:
            stream = soxr.ResampleStream(source_rate, target_rate, block_CN.shape[0], dtype="float64")
            nothing = np.zeros((0, block_CN.shape[0]))
        yield from_rows(stream.resample_chunk(np.ascontiguousarray(block_CN.double().T.numpy())))
    if stream is not None:
        yield from_rows(stream.resample_chunk(nothing, last=True))


def from_rows(samples_NC: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(samples_NC.T))


def in_chunks(blocks: Iterable[Tensor], plan: Plan, sample_rate: int, process: Process) -> Iterator[Tensor]:
    """Run `process` over blocks [C, n] chunk by chunk and give its output [C, ...], as long as the input, joined."""
    chunks = Chunks(plan, sample_rate, process)
    for block_CN in blocks:
        yield from chunks.push(block_CN)
    yield from chunks.finish()
