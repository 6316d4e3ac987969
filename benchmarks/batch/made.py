"""Sounds that measurements of the batch are made on, where no recordings are given: always the same ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from apps.samples import sung_phrase
from hooks import Clip, write_clip
from hooks.clip import create_audio


def lengths(count: int, shortest_s: float, longest_s: float) -> list[float]:
    """So many seconds, from the shortest to the longest in equal ratios, shuffled."""
    ratio = longest_s / shortest_s
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).tolist()
    return [shortest_s * ratio ** (place / max(1, count - 1)) for place in order]


def write_voices(folder: Path, seconds: Sequence[float], sample_rate: int) -> list[Path]:
    """A sung phrase for each length, from different places on and with some noise, 16 bits."""
    phrase_N = sung_phrase(sample_rate).waveform[0]
    generator = torch.Generator().manual_seed(0)
    paths = []
    for number, length_s in enumerate(seconds):
        count = round(length_s * sample_rate)
        start = int(torch.randint(len(phrase_N), (), generator=generator))
        voice_N = phrase_N.repeat(math.ceil(count / len(phrase_N)) + 1)[start : start + count]
        path = folder / f"voice-{number:04}.wav"
        write_clip(Clip(voice_N + 0.003 * torch.randn(count, generator=generator), sample_rate), path)
        paths.append(path)
    return paths


def write_bursts(path: Path, seconds: int, sample_rate: int) -> Path:
    """A mono file of noise that comes and goes, 16 bits, of any length: it is never in memory whole."""
    with create_audio(path, sample_rate, 1) as writer:
        for second_CN in bursts(seconds, sample_rate):
            writer.write(second_CN)
    return path


def bursts(seconds: int, sample_rate: int) -> Iterator[Tensor]:
    """Second after second [1, sample_rate] of it."""
    generator = torch.Generator().manual_seed(0)
    time = torch.arange(sample_rate) / sample_rate
    for _ in range(seconds):
        level, pace = torch.rand(2, generator=generator).tolist()
        swell = torch.sin(math.pi * (1 + math.floor(4 * pace)) * time).square()
        yield (0.02 + 0.2 * level) * swell * torch.randn(1, sample_rate, generator=generator)
