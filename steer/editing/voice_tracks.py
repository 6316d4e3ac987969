"""From the pitch of a sound to the pitch that a `Voice` asks for: arithmetic on tracks [T] of MIDI notes."""

from __future__ import annotations

import torch
from torch import Tensor

from steer.values import Curve
from steer.voice import HIGHEST, LOWEST, Voice, pitch_classes

VIBRATO_S = 0.35
"""Length of the window that takes vibrato (4 to 8 Hz) out of a pitch."""
GLIDE_S = 0.06
"""... and of the one that turns steps between notes into glides."""
JUMP = 2.0
"""Semitones between two frames from which on they are two sounds, over which nothing is averaged."""
HYSTERESIS = 0.2
"""Within a voiced stretch a note of a key is left when another one is nearer by this many semitones: small vibrato does
not go to and fro between two notes."""


def parts(voiced_T: Tensor, midi_T: Tensor) -> list[slice]:
    """The stretches that are voiced throughout and whose pitch does not jump."""
    step_T = torch.zeros_like(midi_T)
    step_T[1:] = (midi_T[1:] - midi_T[:-1]).abs()
    begins_T = voiced_T.clone()
    begins_T[1:] &= ~voiced_T[:-1] | (step_T[1:] > JUMP)
    ends_T = voiced_T.clone()
    ends_T[:-1] &= ~voiced_T[1:] | (step_T[1:] > JUMP)
    begins, ends = begins_T.nonzero()[:, 0].tolist(), ends_T.nonzero()[:, 0].tolist()
    return [slice(begin, end + 1) for begin, end in zip(begins, ends, strict=True)]


def held(values_T: Tensor, voiced_T: Tensor) -> Tensor:
    """Values of the nearest voiced frame where it is unvoiced; as they are where no frame is voiced."""
    at = voiced_T.nonzero()[:, 0]
    if not len(at):
        return values_T
    here = torch.arange(len(values_T))
    right = torch.searchsorted(at, here).clamp(max=len(at) - 1)
    left = (right - 1).clamp(min=0)
    nearer_left = (here - at[left]).abs() <= (at[right] - here).abs()
    return values_T[torch.where(nearer_left, at[left], at[right])]


def window_of(seconds: float, rate: float) -> Tensor:
    """A Hann window of about this length with an odd number of weights above zero, that sum to 1."""
    half = max(1, round(seconds * rate / 2))
    window = torch.hann_window(2 * half + 1, periodic=False, dtype=torch.float64)[1:-1]
    return window / window.sum()


def averaged(padded_T: Tensor, window: Tensor) -> Tensor:
    """Means over a window of what has half a window more at both ends."""
    return torch.nn.functional.conv1d(padded_T[None, None].double(), window[None, None])[0, 0]


def gone_on(values_T: Tensor, count: int) -> Tensor:
    """How values go on for `count` frames: along the straight line that fits the last of them best (by the weights of a
    window, which see little of vibrato), so that a glide stays a glide."""
    last = values_T[-3 * count - 1 :]
    weight = torch.hann_window(len(last) + 2, periodic=False, dtype=last.dtype)[1:-1]
    weight = weight / weight.sum()
    place = torch.arange(1 - len(last), 1, dtype=last.dtype)
    middle, mean = (weight * place).sum(), (weight * last).sum()
    slope = (weight * (place - middle) * last).sum() / (weight * (place - middle).square()).sum()
    return mean + slope * (torch.arange(1, count + 1, dtype=last.dtype) - middle)


def steady(values_T: Tensor, rate: float) -> Tensor:
    """A voiced stretch without its vibrato."""
    window = window_of(VIBRATO_S, rate)
    reach = min(len(window) // 2, len(values_T) - 1)
    if reach < 1:
        return values_T
    window = window[len(window) // 2 - reach : len(window) // 2 + reach + 1]
    before, behind = gone_on(values_T.flip(0), reach).flip(0), gone_on(values_T, reach)
    return averaged(torch.cat([before, values_T, behind]), window / window.sum())


def without_vibrato(midi_T: Tensor, voiced_T: Tensor, rate: float) -> Tensor:
    """The pitch without what is faster than vibrato's window lets through, in each voiced stretch by itself."""
    smooth_T = midi_T.clone()
    for part in parts(voiced_T, midi_T):
        smooth_T[part] = steady(midi_T[part], rate)
    return smooth_T


def nearest_notes(midi_T: Tensor, key: str) -> Tensor:
    """The nearest note of a key for each frame by itself."""
    notes = torch.tensor([n for n in range(int(LOWEST), int(HIGHEST) + 1) if n % 12 in pitch_classes(key)])
    return notes[(midi_T[:, None] - notes).abs().argmin(1)].to(midi_T)


def notes_of(midi_T: Tensor, voiced_T: Tensor, key: str) -> Tensor:
    """The note of a key that each frame goes to: the nearest one, not left for one that is hardly nearer."""
    nearest = nearest_notes(midi_T, key).tolist()
    chosen: list[float] = []
    last: float | None = None
    for midi, note, voiced in zip(midi_T.tolist(), nearest, voiced_T.tolist(), strict=True):
        if not voiced:
            last = None
        elif last is None or abs(midi - last) > abs(midi - note) + HYSTERESIS:
            last = note
        chosen.append(note if last is None else last)
    return held(torch.tensor(chosen, dtype=midi_T.dtype), voiced_T)


def glides(notes_T: Tensor, rate: float) -> Tensor:
    """Notes with short glides in place of the steps between them."""
    window = window_of(GLIDE_S, rate)
    reach = len(window) // 2
    return averaged(torch.cat([notes_T[:1].expand(reach), notes_T, notes_T[-1:].expand(reach)]), window)


def wanted(voice: Voice, midi_T: Tensor, voiced_T: Tensor, time_T: Tensor, median: float | None) -> Tensor:
    """The pitch [T] that is asked for, from a track [T] of which only the voiced frames count, at times in seconds.

    `median` is that of the whole recording; None where nothing of it is voiced. In this order: vibrato, range, note,
    curve, key.
    """
    if not len(midi_T) or not voice.moves_pitch:
        return midi_T
    rate = 1 / float(time_T[1] - time_T[0]) if len(time_T) > 1 else 1.0
    midi_T = midi_T.double()
    if voice.reshapes:
        midi_T = held(midi_T, voiced_T)
    if voice.vibrato is not None:
        midi_T = held(without_vibrato(midi_T, voiced_T, rate), voiced_T)
    if median is not None:
        if voice.pitch_range is not None:
            midi_T = median + voice.pitch_range * (midi_T - median)
        if voice.note is not None:
            midi_T = midi_T + (voice.note - median)
    if voice.pitch_curve is not None:
        midi_T = midi_T + Curve(tuple(voice.pitch_curve)).at(time_T.double())
    if voice.key is not None:
        midi_T = glides(notes_of(midi_T, voiced_T, voice.key), rate)
    return midi_T.clamp(LOWEST, HIGHEST)


def curve_of(values_T: Tensor, time_T: Tensor) -> Curve:
    """Values at times."""
    return Curve(tuple(zip(time_T.tolist(), values_T.double().tolist(), strict=True)))


def interquartile(midi_T: Tensor) -> float:
    """Semitones between the quartiles of a track."""
    low, high = torch.quantile(midi_T.double(), torch.tensor([0.25, 0.75], dtype=torch.float64)).tolist()
    return high - low
