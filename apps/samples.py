"""Sounds made here, for the demo and for a first try: no recording has to be at hand."""

from __future__ import annotations

import torch

from hooks import Clip

VOWELS = {"a": (730, 1090, 2440), "e": (530, 1840, 2480), "i": (270, 2290, 3010), "o": (570, 840, 2410)}
"""First three formants in Hz (Peterson and Barney 1952, men)."""
MELODY = ((57, "a"), (60, "e"), (64, "i"), (62, "o"), (57, "a"))
"""MIDI notes and their vowels."""


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
    f0 = 440 * 2 ** ((midi - 69) / 12)
    phase = 2 * torch.pi * torch.cumsum(f0.double(), 0) / sample_rate
    voice = torch.zeros_like(time)
    for harmonic in range(1, 60):
        frequency = harmonic * f0
        gain = sum(1 / (1 + ((frequency - formant) / 90) ** 2) for formant in smooth[1:]) / harmonic**0.5
        voice += torch.where(frequency < 0.45 * sample_rate, gain, 0) * torch.sin(harmonic * phase).float()
    breath = torch.sin(torch.pi * (time % note_s) / note_s) ** 0.5
    voice = voice * breath
    return Clip(0.3 * voice / voice.abs().max(), sample_rate, "sung phrase")
