"""Sounds made here, for the demo and for a first try: no recording has to be at hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from hooks import Clip

VOWELS = {"a": (730, 1090, 2440), "e": (530, 1840, 2480), "i": (270, 2290, 3010), "o": (570, 840, 2410)}
"""First three formants in Hz (Peterson and Barney 1952, men)."""
MELODY = ((57, "a"), (60, "e"), (64, "i"), (62, "o"), (57, "a"))
"""MIDI notes and their vowels."""
BASS = (33, 33, 45, 33, 36, 36, 48, 43)
"""MIDI notes, an eighth each."""
CHORDS = ((57, 64, 69, 72), (53, 60, 65, 69), (48, 55, 64, 67), (55, 59, 62, 67))
"""MIDI notes of A minor, F, C and G, one after another."""


def hertz(midi: Tensor | float) -> Tensor:
    return 440 * 2 ** ((torch.as_tensor(midi) - 69) / 12)


def sung_phrase(sample_rate: int = 24_000, note_s: float = 0.6) -> Clip:
    """A synthetic voice that sings `MELODY`: harmonics of a gliding pitch with vibrato, through moving formants."""
    count = int(note_s * sample_rate)
    time = torch.arange(count * len(MELODY)) / sample_rate
    notes = torch.tensor([float(note) for note, _ in MELODY]).repeat_interleave(count)
    formants = torch.tensor([VOWELS[vowel] for _, vowel in MELODY], dtype=torch.float32).repeat_interleave(count, 0)
    # notes and vowels glide into each other within 60 ms
    span = int(0.06 * sample_rate) | 1
    curves = torch.cat([notes[None], formants.T])
    padded = torch.nn.functional.pad(curves[None], (span // 2, span // 2), mode="replicate")
    smooth = torch.nn.functional.avg_pool1d(padded, span, 1)[0]
    midi = smooth[0] + 0.25 * torch.sin(2 * torch.pi * 5.5 * time)
    f0 = hertz(midi)
    phase = 2 * torch.pi * torch.cumsum(f0.double(), 0) / sample_rate
    voice = torch.zeros_like(time)
    for harmonic in range(1, 60):
        frequency = harmonic * f0
        gain = sum(1 / (1 + ((frequency - formant) / 90) ** 2) for formant in smooth[1:]) / harmonic**0.5
        voice += torch.where(frequency < 0.45 * sample_rate, gain, 0) * torch.sin(harmonic * phase).float()
    breath = torch.sin(torch.pi * (time % note_s) / note_s) ** 0.5
    voice = voice * breath
    return Clip(0.3 * voice / voice.abs().max(), sample_rate, "sung phrase")


def drums_and_bass(sample_rate: int = 24_000, eighth_s: float = 0.28, bars: int = 2) -> Clip:
    """Kick, snare and hi-hat in 4/4, over `BASS`: low and high sounds, short and long, that start at known times."""
    eighth = int(eighth_s * sample_rate)
    time = torch.arange(eighth) / sample_rate
    generator = torch.Generator().manual_seed(0)

    def noise(decay_s: float) -> Tensor:
        return torch.randn(eighth, generator=generator) * torch.exp(-time / decay_s)

    # the drum's skin slackens: from 160 Hz down to 50
    kick = torch.sin(2 * torch.pi * (50 * time - 110 * 0.03 * torch.expm1(-time / 0.03))) * torch.exp(-time / 0.1)
    beats = []
    for place, note in enumerate(BASS * bars):
        harmonics = torch.arange(1, 9)[:, None]
        strings = torch.sin(2 * torch.pi * hertz(note) * harmonics * time) * torch.exp(-time * harmonics / 0.25)
        beat = 0.35 * (strings / harmonics).sum(0)
        if place % 4 == 0:
            beat += kick
        if place % 4 == 2:
            beat += 0.3 * noise(0.06) + 0.4 * torch.sin(2 * torch.pi * 190 * time) * torch.exp(-time / 0.05)
        # the difference of neighbours leaves the high end of the noise
        beat += 0.12 * noise(0.025 if place % 4 != 3 else 0.08).diff(prepend=torch.zeros(1))
        beats.append(beat * edges(eighth, sample_rate))
    loop = torch.cat(beats)
    return Clip(0.6 * loop / loop.abs().max(), sample_rate, "drums and bass")


def plucked_strings(sample_rate: int = 24_000, note_s: float = 0.3, ring_s: float = 1.6) -> Clip:
    """`CHORDS` on a guitar, string by string and each ringing on: a model of strings (Karplus and Strong 1983)."""
    notes = [note for chord in CHORDS for note in chord]
    every, count = int(note_s * sample_rate), int(ring_s * sample_rate)
    music = torch.zeros(every * (len(notes) - 1) + count)
    for place, note in enumerate(notes):
        string = plucked(float(hertz(note)), count, sample_rate)
        music[place * every : place * every + count] += string * edges(count, sample_rate)
    return Clip(0.5 * music / music.abs().max(), sample_rate, "plucked strings")


def plucked(f0: float, count: int, sample_rate: int) -> Tensor:
    """One string [count]: a period that goes round, each time averaged with itself a sample later.

    It begins as the force on the bridge of a string that was plucked at a fifth of its length.
    """
    # the average delays by half a sample
    period = round(sample_rate / f0 - 0.5)
    wave = torch.where(torch.arange(period) < period / 5, 1.0, -0.25)
    wave -= wave.mean()
    periods, last = [wave], wave[-1:]
    for _ in range(math.ceil(count / period) - 1):
        earlier = torch.cat([last, wave[:-1]])
        last, wave = wave[-1:], 0.498 * (wave + earlier)
        periods.append(wave)
    return torch.cat(periods)[:count]


def edges(count: int, sample_rate: int, in_s: float = 0.002, out_s: float = 0.03) -> Tensor:
    """From 0 up to 1 and at the end down to 0 again [count], so that nothing clicks."""
    place = torch.arange(count) / sample_rate
    return (place / in_s).clamp(max=1) * ((count - 1) / sample_rate - place).div(out_s).clamp(max=1)


SAMPLES: dict[str, Callable[..., Clip]] = {
    "Sung phrase": sung_phrase,
    "Drums and bass": drums_and_bass,
    "Plucked strings": plucked_strings,
}
"""By the names that people see."""
