"""A long sound through a codec in bounded memory: resampled as it comes, run in chunks, joined without a seam.

Chunks start on the codec's own grid of frames and have context on both sides, so that the frames, and what is kept of
the output, are those of one pass over the whole. Short cross-fades cover what little an LSTM or a norm makes of a cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import soxr
import torch
from torch import Tensor

from hooks.model import Codec

CHUNK_S = 20.0
FADE_S = 0.01

Process = Callable[[Tensor, float], Tensor]
"""Takes [C, n] at the codec's rate and its start in seconds, gives [C, n]."""


class Queue:
    """Samples [C, n] that wait: `add` at the end, `drop` at the head. `start` is the place of the head in the whole."""

    def __init__(self, channels: int, dtype: torch.dtype) -> None:
        self.start = 0
        self.samples = torch.zeros(channels, 0, dtype=dtype)

    @property
    def end(self) -> int:
        return self.start + self.samples.shape[1]

    def add(self, block_CN: Tensor) -> None:
        self.samples = torch.cat([self.samples, block_CN.to(self.samples.dtype)], dim=1)

    def part(self, start: int, end: int) -> Tensor:
        return self.samples[:, start - self.start : end - self.start]

    def drop(self, until: int) -> None:
        if until > self.start:
            # cloned, so that the dropped samples are set free
            self.samples = self.samples[:, until - self.start :].clone()
            self.start = until

    def take(self, count: int) -> Tensor:
        taken = self.samples[:, :count]
        self.drop(min(self.start + count, self.end))
        return taken


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


@dataclass(frozen=True)
class Plan:
    """How a codec's input is cut, in its samples: `core` is kept, `context` is on both sides, `fade` overlaps."""

    core: int
    context: int
    fade: int

    @classmethod
    def of(cls, codec: Codec, chunk_s: float = CHUNK_S) -> Plan:
        assert codec.sample_rate is not None
        # a codec that cuts its input into chunks itself is cut where it would cut
        own_s = getattr(codec, "chunk_s", None)
        grid = round(own_s * codec.sample_rate) if own_s else codec.hop_length
        core = max(1, round(chunk_s * codec.sample_rate / grid)) * grid
        # one step of the grid more, so that the last frame in the context is whole
        context = (math.ceil(codec.context_s * codec.sample_rate / grid) + 1) * grid
        return cls(core, context, min(round(FADE_S * codec.sample_rate), context, core))


def in_chunks(blocks: Iterable[Tensor], plan: Plan, sample_rate: int, process: Process) -> Iterator[Tensor]:
    """Run `process` over blocks [C, n] chunk by chunk and give its output [C, ...], as long as the input, joined."""
    queue: Queue | None = None
    tail: Tensor | None = None
    core = 0  # where the next chunk's core starts

    def run(end_of_sound: bool) -> Tensor:
        nonlocal tail, core
        assert queue is not None
        start = max(0, core - plan.context)
        output = process(queue.part(start, core + plan.core + plan.context), start / sample_rate)
        kept = output[:, core - start :]
        if tail is not None:
            width = min(tail.shape[1], kept.shape[1])
            # lerp gives exactly what both agree on
            joined = torch.lerp(tail[:, :width], kept[:, :width], torch.linspace(0, 1, width, dtype=kept.dtype))
            kept = torch.cat([joined, kept[:, width:]], dim=1)
        if end_of_sound:
            return kept
        tail = kept[:, plan.core : plan.core + plan.fade]
        core += plan.core
        queue.drop(core - plan.context)
        return kept[:, : plan.core]

    for block_CN in blocks:
        queue = queue or Queue(block_CN.shape[0], torch.float32)
        queue.add(block_CN)
        while queue.end >= core + plan.core + plan.context:
            yield run(end_of_sound=False)
    if queue is None:
        return
    while queue.end > core + plan.core + plan.fade:
        yield run(end_of_sound=False)
    if queue.end > core:
        yield run(end_of_sound=True)
