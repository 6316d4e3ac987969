"""What became of each request of a `Voice`: the pitch by CREPE and the spectral envelope, before and after."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from steer.acoustics import audible_frames, frame_count, pitch_track
from steer.editing.voice_tracks import interquartile, nearest_notes, parts, wanted
from steer.frame_labels import mono
from steer.values import Span
from steer.voice import Voice, shown

Heard = dict[str, Any]
"""`asked`: the request as people write it. `measured`, `before` and `after`: numbers with this `unit`, None where they
cannot be measured. `measured` is
    pitch_curve   the median distance in cents between the pitch track and the one asked for
    pitch_range   how many times as far apart the quartiles of the pitch are (`before` and `after`: cents)
    vibrato       the depth after the edit, in cents (root mean square between 3 and 9 Hz)
    key           the share of voiced frames within 30 cents of a note of the key
    note          the median pitch, a MIDI number
    whisper       the share of frames that are voiced
    formants      by how many semitones the spectral envelope has moved
"""
UNITS = {
    "pitch_curve": "cents off",
    "pitch_range": "x",
    "vibrato": "cents",
    "key": "of voiced frames",
    "note": "MIDI",
    "whisper": "of frames voiced",
    "formants": "st",
}
FRAME_RATE = 50.0
FEWEST = 5
IN_TUNE = 0.3
BAND_HZ, SHORTEST_S = (3.0, 9.0), 0.5
FORMANT_HZ, FURTHEST_ST, STEP_ST = (300.0, 7000.0), 12.0, 0.1
LIFTER_S = 0.0015
"""Quefrencies beyond this belong to the pitch (below 660 Hz) and not to the envelope."""


def measured_voice(
    voice: Voice, before_CN: Tensor, after_CN: Tensor, sample_rate: int, spans: Sequence[Span]
) -> dict[str, Heard]:
    """{request: what was measured}; the sounds [C, N] are these spans of the recording (seconds), one after another.

    Without the extra `eval` nothing is known of the pitch.
    """
    heard: dict[str, Heard] = {
        name: {"asked": shown(name, value), "unit": UNITS[name]} for name, value in voice.requests.items()
    }
    if voice.formants is not None:
        heard["formants"]["measured"] = envelope_shift(before_CN, after_CN, sample_rate)
    if voice.moves_pitch or voice.whisper is not None:
        tracks = [pitch_track(x_CN.float(), sample_rate, frame_rate=FRAME_RATE) for x_CN in (before_CN, after_CN)]
        if tracks[0] is not None and tracks[1] is not None:
            time_T = times(frame_count(before_CN, sample_rate, FRAME_RATE), spans)
            for name, numbers in pitch_numbers(voice, tracks[0], tracks[1], time_T).items():
                heard[name] |= numbers
    return {name: {"measured": None, **some} for name, some in heard.items()}


def times(frames: int, spans: Sequence[Span]) -> Tensor:
    """Seconds in the recording of the centres of frames of its spans, one after another."""
    at_T = (torch.arange(frames, dtype=torch.float64) + 0.5) / FRAME_RATE
    lengths = torch.tensor([end - start for start, end in spans], dtype=torch.float64)
    ends = lengths.cumsum(0)
    span_T = torch.searchsorted(ends, at_T).clamp(max=len(spans) - 1)
    starts = torch.tensor([start for start, _ in spans], dtype=torch.float64)
    return at_T - (ends - lengths)[span_T] + starts[span_T]


def pitch_numbers(voice: Voice, before_T: Tensor, after_T: Tensor, time_T: Tensor) -> dict[str, Heard]:
    """What tracks (MIDI notes every 20 ms, NaN where unvoiced) tell of each request but formants."""
    pair = (before_T, after_T)
    voiced = [track[~track.isnan()] for track in pair]
    numbers: dict[str, Heard] = {}
    if voice.whisper is not None:
        shares = [len(some) / max(1, len(track)) for some, track in zip(voiced, pair, strict=True)]
        numbers["whisper"] = {"measured": shares[1], "before": shares[0], "after": shares[1]}
    if min(map(len, voiced)) < FEWEST:
        return numbers
    medians = [float(some.median()) for some in voiced]
    if voice.pitch_curve is not None:
        wanted_T = wanted(voice, before_T, ~before_T.isnan(), time_T, medians[0])
        off_T = (after_T - wanted_T)[~before_T.isnan() & ~after_T.isnan()]
        numbers["pitch_curve"] = {"measured": 100 * float(off_T.abs().median()) if len(off_T) >= FEWEST else None}
    if voice.pitch_range is not None:
        low, high = (100 * interquartile(some) for some in voiced)
        numbers["pitch_range"] = {"measured": high / low if low > 0 else None, "before": low, "after": high}
    if voice.vibrato is not None:
        both_T = ~before_T.isnan() & ~after_T.isnan()
        depths = [vibrato_cents(track.masked_fill(~both_T, torch.nan)) for track in pair]
        numbers["vibrato"] = {"measured": depths[1], "before": depths[0], "after": depths[1]}
    if voice.key is not None:
        near = [float(((some - nearest_notes(some, voice.key)).abs() <= IN_TUNE).float().mean()) for some in voiced]
        numbers["key"] = {"measured": near[1], "before": near[0], "after": near[1]}
    if voice.note is not None:
        numbers["note"] = {"measured": medians[1], "before": medians[0], "after": medians[1]}
    return numbers


def vibrato_cents(track_T: Tensor) -> float | None:
    """Root mean square in cents of what the pitch does between 3 and 9 Hz, in voiced stretches of half a second or
    more; None where there are none."""
    power, frames = 0.0, 0
    for part in parts(~track_T.isnan(), track_T):
        values = track_T[part].double()
        if len(values) < SHORTEST_S * FRAME_RATE:
            continue
        place = torch.linspace(-1, 1, len(values), dtype=torch.float64)
        values = values - values.mean() - place * (place * values).sum() / place.square().sum()
        hz = torch.fft.rfftfreq(len(values), 1 / FRAME_RATE)
        inside = (hz >= BAND_HZ[0]) & (hz <= BAND_HZ[1])
        power += float(torch.fft.irfft(torch.fft.rfft(values) * inside, len(values)).square().sum())
        frames += len(values)
    return 100 * math.sqrt(power / frames) if frames else None


def envelope_shift(before_CN: Tensor, after_CN: Tensor, sample_rate: int) -> float | None:
    """By how many semitones the envelope of the log spectrum has to move to be most like the one after the edit."""
    low, high = FORMANT_HZ[0], min(FORMANT_HZ[1], 0.45 * sample_rate)
    steps = math.floor(12 * math.log2(high / low) / STEP_ST)
    hz_K = low * 2 ** (torch.arange(steps) * STEP_ST / 12)
    first_TK, second_TK = (envelopes(x_CN, sample_rate, hz_K) for x_CN in (before_CN, after_CN))
    audible_T = audible_frames(before_CN, sample_rate)
    if not audible_T.any():
        return None
    frames = audible_T[: len(first_TK)].nonzero()[:, 0]
    first_TK, second_TK = first_TK[frames], second_TK[frames]
    furthest = round(FURTHEST_ST / STEP_ST)
    scores = []
    for lag in range(-furthest, furthest + 1):
        a = first_TK[:, max(0, -lag) : steps - max(0, lag)]
        b = second_TK[:, max(0, lag) : steps - max(0, -lag)]
        a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
        scores.append((a * b).sum() / (a.square().sum() * b.square().sum()).sqrt().clamp(min=1e-12))
    return (int(torch.stack(scores).argmax()) - furthest) * STEP_ST


def envelopes(x_CN: Tensor, sample_rate: int, hz_K: Tensor) -> Tensor:
    """Envelopes of the log spectrum [T, K] every 10 ms at frequencies on a log axis, by their low quefrencies."""
    n_fft, hop = 2 ** math.ceil(math.log2(0.04 * sample_rate)), round(sample_rate / 100)
    spectrum_FT = torch.stft(
        mono(x_CN), n_fft, hop, window=torch.hann_window(n_fft), return_complex=True, pad_mode="constant"
    )
    cepstrum_QT = torch.fft.irfft((spectrum_FT.abs() + 1e-5).log(), n_fft, dim=0)
    place = torch.arange(n_fft)
    quefrency = torch.minimum(place, n_fft - place) / sample_rate
    lifter_Q = (0.5 + 0.5 * torch.cos(torch.pi * (quefrency / LIFTER_S).clamp(max=1)))[:, None]
    smooth_TF = torch.fft.rfft(cepstrum_QT * lifter_Q, dim=0).real.T
    place_K = hz_K * n_fft / sample_rate
    left_K = place_K.long()
    return torch.lerp(smooth_TF[:, left_K], smooth_TF[:, left_K + 1], place_K - left_K)
