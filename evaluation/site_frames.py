"""Frames of clips at a site, and what can be measured of the sound at each: pitch, loudness, brightness."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evaluation.config import EvaluationError
from evaluation.dataset import LabelledSound
from evaluation.report import Progress
from hooks.capture import Recorder
from hooks.errors import one_line
from hooks.model import AudioModel
from steer.frame_labels import centroid_hz, loudness_db, pitch_midi
from steer.probes import Bins, linear_bins, pitch_bins

MEASURES: Mapping[str, Callable[..., Tensor]] = {
    "pitch": pitch_midi,
    "loudness": loudness_db,
    "brightness": centroid_hz,
}
"""What is measured of each frame, NaN where there is none: MIDI notes, dB, Hz. Silent frames have no pitch."""
UNITS = {"loudness": "dB", "brightness": "Hz"}


@dataclass(frozen=True)
class LabelledFrames:
    """Frames `x_ND`, values [N] of attributes (NaN: none), of which clip each is (`clip_N`), and the clips' groups."""

    x_ND: Tensor
    values: Mapping[str, Tensor]
    clip_N: np.ndarray
    groups: Sequence[str]

    @property
    def clips(self) -> int:
        return len(self.groups)


def bins_of(attribute: str, values_N: Tensor) -> Bins:
    """The classes of an attribute: 66 notes, or 20 equal steps over the values, which are those of train frames.

    Raises:
        ProbeError: values that do not differ.
    """
    if attribute == "pitch":
        return pitch_bins()
    return linear_bins(attribute, UNITS.get(attribute, ""), values_N)


@torch.no_grad()
def frames_of(model: AudioModel, site: str, sound: LabelledSound) -> tuple[Tensor, Tensor]:
    """The frames [B, T, D] of a clip, and the sound [C, samples] as the model gets it.

    Raises:
        EvaluationError: the clip is too short for the model, or an activation is not finite.
    """
    audio_BCN = model.prepare(sound.source)
    with Recorder(model.module, [model.site(site)]) as recorder:
        try:
            model.pass_through(audio_BCN)
        except RuntimeError as error:  # what torch raises where a sound is too short for a network
            raise EvaluationError(f"{sound.name}: {model.name} cannot take it ({one_line(error)})") from error
        x_BTD = recorder.take()[site].float().cpu()
    if not x_BTD.numel():
        raise EvaluationError(f"{sound.name}: too short for {model.name}, there is no frame at {site}")
    if not x_BTD.isfinite().all():
        raise EvaluationError(f"{sound.name}: the activation at {site} of {model.name} is not finite")
    return x_BTD, audio_BCN.flatten(0, 1).float().cpu()


def labelled_frames(
    model: AudioModel,
    site: str,
    sounds: Sequence[LabelledSound],
    per_clip: int,
    progress: Progress = iter,
) -> tuple[Tensor, LabelledFrames]:
    """All frames [N, D] of the clips, and at most `per_clip` of each, evenly spread, with what is measured there.

    Raises:
        EvaluationError: the site has no frame rate, or a clip is too short.
        AudioFileError: a clip that cannot be read.
        MissingExtraError: torchcrepe is not installed.
    """
    rate = model.site(site).frame_rate
    if rate is None or model.sample_rate is None:
        raise EvaluationError(f"--site {site}: its frame rate is not known, so frames cannot be measured")
    everything, some, clips = [], [], []
    values: dict[str, list[Tensor]] = {name: [] for name in MEASURES}
    for number, sound in enumerate(progress(list(sounds))):
        x_BTD, audio_CN = frames_of(model, site, sound)
        count = x_BTD.shape[1]
        rows = torch.linspace(0, count - 1, min(per_clip, count)).round().long()
        everything.append(x_BTD.flatten(0, 1))
        some.append(x_BTD[0, rows])
        clips.append(np.full(len(rows), number))
        for name, measure in MEASURES.items():
            values[name].append(measure(audio_CN, model.sample_rate, rate, count)[rows])
    joined = {name: torch.cat(parts) for name, parts in values.items()}
    groups = [sound.labels.get("group", "") or sound.speaker for sound in sounds]
    return torch.cat(everything), LabelledFrames(torch.cat(some), joined, np.concatenate(clips), groups)
