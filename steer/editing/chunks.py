"""How a file is cut for a codec of another rate: chunks of the file that start on the codec's grid of frames."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hooks.model import Codec
from hooks.samples import resampled
from steer.stream import FADE_S, Plan

CHUNK_S = 20.0
LONGEST_GRID_S = 5.0
"""Rates whose common grid is longer than this are cut at the nearest sample instead."""


def grid_samples(codec: Codec, sample_rate: int) -> int:
    """Samples of the file that are a whole number of the codec's frames, or of the chunks it cuts itself."""
    assert codec.sample_rate is not None
    own_s = getattr(codec, "chunk_s", None)
    frame = round(own_s * codec.sample_rate) if own_s else codec.hop_length
    frames = codec.sample_rate // math.gcd(codec.sample_rate, frame * sample_rate)
    if frames * frame > LONGEST_GRID_S * codec.sample_rate:
        return max(1, round(frame * sample_rate / codec.sample_rate))
    return frames * frame * sample_rate // codec.sample_rate


def file_plan(codec: Codec, sample_rate: int, chunk_s: float = CHUNK_S) -> Plan:
    """Cores of about `chunk_s` seconds with the codec's context on both sides, in samples of the file."""
    grid = grid_samples(codec, sample_rate)
    core = max(1, round(chunk_s * sample_rate / grid)) * grid
    # one step of the grid more, so that the last frame in the context is whole
    context = (math.ceil(codec.context_s * sample_rate / grid) + 1) * grid
    return Plan(core, context, context, min(round(FADE_S * sample_rate), context, core))


def fitted(x_CN: Tensor, source_rate: int, target_rate: int, count: int | None = None) -> Tensor:
    """[C, n] at another rate, float32; cut or padded to `count` samples."""
    x_CN = resampled(x_CN, source_rate, target_rate).float()
    if count is None or count == x_CN.shape[1]:
        return x_CN
    return torch.nn.functional.pad(x_CN, (0, max(0, count - x_CN.shape[1])))[:, :count]
