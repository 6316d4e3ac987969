"""Chords and drums made in code: several sounds at once are measured where no recordings of them are at hand.

A clip is the same on every machine of one release of torch: its index is the seed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from hooks import Clip

SAMPLE_RATE = 44_100
SECONDS = 2.0
MOST_CLIPS = 12
"""Clips of a subset: further ones would be of the same kinds."""
CHORDS = ((0, 7, 12, 16), (0, 7, 12, 15), (0, 4, 7, 10), (0, 5, 7, 12), (0, 3, 6, 9), (0, 4, 8, 12))
"""Semitones above the lowest note: major, minor, seventh, suspended fourth, diminished, augmented."""
LOWEST_NOTES = (40, 57)
"""MIDI notes between which the lowest note of a chord lies."""
HARMONICS = 24
STEP_S = (0.11, 0.16)
"""Length of a sixteenth in a drum pattern, s."""


def uniform(low: float, high: float, generator: Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def times(seconds: float) -> Tensor:
    return torch.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE


def finished(sound_N: Tensor, name: str) -> Clip:
    """At a peak of 0.5, with 30 ms of fading at the end."""
    fade_N = ((len(sound_N) - 1 - torch.arange(len(sound_N))) / (0.03 * SAMPLE_RATE)).clamp(max=1)
    return Clip(0.5 * fade_N * sound_N / sound_N.abs().max(), SAMPLE_RATE, name)


def chord(index: int) -> Clip:
    """Four plucked or held notes that start within 60 ms; their brightness and decay differ from clip to clip."""
    generator = Generator().manual_seed(index)
    time_N, order_H = times(SECONDS), torch.arange(1, HARMONICS + 1)[:, None]
    lowest = round(uniform(*LOWEST_NOTES, generator))
    slope, decay_s = uniform(0.7, 1.8, generator), uniform(0.3, 2.0, generator)
    sound_N = torch.zeros_like(time_N)
    for semitones in CHORDS[index % len(CHORDS)]:
        f0 = 440 * 2 ** ((lowest + semitones - 69) / 12)
        since_N = time_N - uniform(0, 0.06, generator)
        phase_HN = 2 * torch.pi * (f0 * order_H * since_N + torch.rand(HARMONICS, 1, generator=generator))
        audible_H = (f0 * order_H < 0.45 * SAMPLE_RATE) / order_H**slope
        envelope_HN = torch.exp(-since_N * order_H**0.5 / decay_s) * (since_N / 0.005).clamp(0, 1)
        sound_N += (audible_H * envelope_HN * phase_HN.sin()).sum(0)
    return finished(sound_N, f"chords/{index}")


def drum_pattern(index: int) -> Clip:
    """Bass drum, snare drum and hi-hat on sixteenths, at a tempo and in a pattern of the clip's own."""
    generator = Generator().manual_seed(index)
    step = round(uniform(*STEP_S, generator) * SAMPLE_RATE)
    time_N = times(0.3)
    noise_N = torch.randn(len(time_N), generator=generator)
    attack_N = (time_N / 0.001).clamp(max=1)
    sweep_N = 50 * time_N - 110 * 0.03 * torch.expm1(-time_N / 0.03)  # from 160 Hz down to 50
    drums = {
        "bass": attack_N * torch.sin(2 * torch.pi * sweep_N) * torch.exp(-time_N / 0.1),
        "snare": attack_N
        * (
            0.4 * noise_N * torch.exp(-time_N / 0.06)
            + 0.4 * torch.sin(380 * torch.pi * time_N - 1) * (-time_N / 0.05).exp()
        ),
        # the difference of neighbours keeps the high end of the noise
        "hat": 0.15 * noise_N.diff(prepend=noise_N[:1]) * torch.exp(-time_N / uniform(0.02, 0.06, generator)),
    }
    sound_N = torch.zeros(round(SECONDS * SAMPLE_RATE))
    for place, start in enumerate(range(0, len(sound_N), step)):
        for drum, chance in (("bass", 0.9 * (place % 8 in (0, 6))), ("snare", 0.95 * (place % 8 == 4)), ("hat", 0.7)):
            level = uniform(0.7, 1.0, generator)
            if place == 0 or uniform(0, 1, generator) < max(chance, 0.05):
                end = min(start + len(time_N), len(sound_N))
                sound_N[start:end] += level * drums[drum][: end - start]
    return finished(sound_N, f"drums/{index}")


MADE: dict[str, Callable[[int], Clip]] = {"chords": chord, "drums": drum_pattern}
"""By the names of their subsets."""


def made_clips(subset: str, limit: int | None = None) -> list[Clip]:
    """The clips of a subset that is made here, at most `limit`."""
    return [MADE[subset](index) for index in range(min(MOST_CLIPS, limit or MOST_CLIPS))]
