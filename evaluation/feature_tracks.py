"""Features over time: what passes at a site while a long sound runs through a model, and all of it at another rate.

A long sound runs in windows of `WINDOW_S` with `OVERLAP_S` in common, of which half is taken from either: at the border
of a window a model lacks what is on the other side, and a border every half minute would be a stimulus of its own.
Padding is left out. A frame belongs to the middle of what it is computed from (`first_centre_s`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from evaluation.brain import BrainError
from hooks import Clip, Site
from hooks.capture import Recorder
from hooks.families.ssl import SpeechEncoder
from hooks.families.whisper.base import Whisper
from hooks.model import AudioModel, Source
from hooks.timing import at_time

WINDOW_S, OVERLAP_S = 30.0, 2.0
FRAMES_AT_ONCE = 4096
COMPRESSION = 0.3
"""Power to which the envelope is raised: loudness grows about like this, and EEG follows it better."""

Resampling = Literal["linear", "hold"]


@dataclass(frozen=True, eq=False)
class Frames:
    """What passed at a site: [T, D] at moments [T] (seconds) of a sound of `length_s`."""

    x_TD: Tensor
    centre_T: np.ndarray
    length_s: float


def first_centre_s(model: AudioModel, site: Site) -> float:
    """The middle of what the first frame sees, in seconds; later frames follow at the frame rate.

    The front of HuBERT and its kin starts with the sound and pads nothing; Whisper's spectrogram and convolutions are
    centred, its first frame on the first sample. In other models a frame is the middle of its step.
    """
    assert site.frame_rate
    if isinstance(model, SpeechEncoder):
        return model.min_samples / 2 / model.sample_rate  # type: ignore[operator]
    return 0.0 if isinstance(model, Whisper) else 0.5 / site.frame_rate


@torch.no_grad()
def frames_of(model: AudioModel, site: Site, source: Source) -> Frames:
    """The activation at a site over a sound of any length.

    Raises:
        BrainError: the site has no frame rate, so that its frames have no time.
        AudioFileError: the sound cannot be read.
    """
    if not site.frame_rate:
        raise BrainError(f"{model.name}: site {site.name!r} has no frame rate, so its frames cannot be put beside EEG")
    audio_BCN, rate = model.prepare(source), model.sample_rate
    assert rate
    samples = audio_BCN.shape[-1]
    length, step = round(WINDOW_S * rate), round((WINDOW_S - OVERLAP_S) * rate)
    parts, centres = [], []
    for start in range(0, samples, step):
        first, last = start == 0, start + length >= samples
        with Recorder(model.module, [site]) as recorder, at_time(start / rate):
            model.run(audio_BCN[..., start : start + length])
            x_TD = recorder.take()[site.name][0].float().cpu()
        centre_T = start / rate + first_centre_s(model, site) + np.arange(len(x_TD)) / site.frame_rate
        from_s = -np.inf if first else (start / rate + OVERLAP_S / 2)
        until_s = np.inf if last else (start + step) / rate + OVERLAP_S / 2
        inside_T = (centre_T >= from_s) & (centre_T < until_s)
        parts.append(x_TD[torch.from_numpy(inside_T)])
        centres.append(centre_T[inside_T])
        if last:
            break
    return Frames(torch.cat(parts), np.concatenate(centres), samples / rate)


@torch.no_grad()
def encoded(sae: Any, frames: Frames, chosen: Tensor | None = None) -> Tensor:
    """Features [T, F] of an SAE, or some of them."""
    device = next((one.device for one in sae.parameters()), torch.device("cpu")) if hasattr(sae, "parameters") else None
    parts = []
    for x_TD in frames.x_TD.split(FRAMES_AT_ONCE):
        f_TF = sae.encode(x_TD[None].to(device))[0].float().cpu()
        parts.append(f_TF if chosen is None else f_TF[:, chosen])
    return torch.cat(parts)


def at_rate(f_TF: Tensor, centre_T: np.ndarray, length_s: float, rate: float, how: Resampling = "linear") -> Tensor:
    """Values [F, N] at the times 0, 1 / rate, ... of a sound: on straight lines between frames, or that of the nearest
    frame. (A resampling by FFT would ring before each onset.)"""
    time_N = np.arange(round(length_s * rate)) / rate
    right_N = np.clip(np.searchsorted(centre_T, time_N), 1, len(centre_T) - 1) if len(centre_T) > 1 else 0 * time_N
    right_N = right_N.astype(np.int64)
    left_N = np.maximum(right_N - 1, 0)
    gap_N = np.maximum(centre_T[right_N] - centre_T[left_N], 1e-12)
    share_N = np.clip((time_N - centre_T[left_N]) / gap_N, 0, 1)
    if how == "hold":
        share_N = np.floor(share_N + 0.5)
    share_N1 = torch.from_numpy(share_N).to(f_TF.dtype)[:, None]
    return (f_TF[left_N] * (1 - share_N1) + f_TF[right_N] * share_N1).T.contiguous()


def acoustics(clip: Clip, length_s: float, rate: float) -> Tensor:
    """[2, N]: the envelope of a sound (root mean square of the samples around each moment, compressed) and its onset
    (how much the envelope rises)."""
    power_N = clip.waveform.double().square().mean(0)
    total = torch.cat([power_N.new_zeros(1), power_N.cumsum(0)])
    edges = ((torch.arange(round(length_s * rate) + 1, dtype=torch.float64) - 0.5) / rate * clip.sample_rate).round()
    edges = edges.long().clamp(0, len(power_N))
    mean = (total[edges[1:]] - total[edges[:-1]]) / (edges[1:] - edges[:-1]).clamp(min=1)
    envelope = mean.clamp(min=0).sqrt() ** COMPRESSION
    onset = torch.cat([envelope.new_zeros(1), envelope.diff()]).clamp(min=0)
    return torch.stack([envelope, onset])


def by_maximum(tracks: dict[str, Tensor]) -> dict[str, Tensor]:
    """Each feature over its largest magnitude in all runs; one that is 0 throughout stays so."""
    highest_F = torch.stack([f_FN.abs().amax(1) for f_FN in tracks.values()]).amax(0)
    return {run: f_FN / torch.where(highest_F > 0, highest_F, 1)[:, None] for run, f_FN in tracks.items()}
