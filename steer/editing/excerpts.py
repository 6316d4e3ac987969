"""The stretches of a file on which strengths are tried and measured: all of a short one, samples of a long one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hooks.clip import AudioInfo, read_blocks
from steer.values import Span

WHOLE_S = 24.0
"""Up to this length in seconds everything that is edited is tried and measured."""
PIECES, PIECE_S = 6, 4


@dataclass(frozen=True)
class Stretch:
    """Samples [C, n] at the file's rate from `start_s` on; of these, `inner` lies within what is measured."""

    start_s: float
    samples: Tensor
    inner: slice


def choose(info: AudioInfo, during: Sequence[Span] | None, levels: Sequence[float] | None = None) -> list[Span]:
    """Spans in seconds: those of `during` (or the whole file), or if they are long `PIECES` loud parts.

    `levels` are the file's powers second by second; without them they are read where they are needed. Empty if the file
    ends before `during` begins.
    """
    spans = [(start, min(end, info.seconds)) for start, end in during or [(0.0, info.seconds)] if start < info.seconds]
    if sum(end - start for start, end in spans) <= WHOLE_S:
        return spans
    windows = []
    for start, end in spans:
        # whole seconds, so that the codec's frames lie as in the pass over the whole file
        starts = range(math.ceil(start), math.floor(end) - PIECE_S + 1)
        windows += [(float(second), float(second + PIECE_S)) for second in starts] or [(start, end)]
    levels = levels or powers(info)
    loudness = [sum(levels[int(start) : math.ceil(end)]) / (end - start) for start, end in windows]
    chosen = []
    for piece in range(min(PIECES, len(windows))):
        low, high = (len(windows) * edge // min(PIECES, len(windows)) for edge in (piece, piece + 1))
        chosen.append(windows[max(range(low, high), key=loudness.__getitem__)])
    return chosen


def powers(info: AudioInfo) -> list[float]:
    return [float(block_CN.square().mean()) for block_CN in read_blocks(info, info.sample_rate)]


def read_stretches(info: AudioInfo, spans: Sequence[Span], context_s: float) -> list[Stretch]:
    """The spans with `context_s` seconds of what is around them, from whole seconds on, in float64.

    Raises:
        AudioFileError: the file is damaged, truncated, or has samples that are not finite.
    """
    stretches = []
    for start_s, end_s in spans:
        first = max(0, math.floor(start_s - context_s)) * info.sample_rate
        last = min(info.frames, math.ceil((end_s + context_s) * info.sample_rate))
        samples = torch.cat(list(read_blocks(info, last - first, "float64", first, last)), dim=1)
        inner = slice(round(start_s * info.sample_rate) - first, max(1, round(end_s * info.sample_rate) - first))
        stretches.append(Stretch(first / info.sample_rate, samples, inner))
    return stretches
