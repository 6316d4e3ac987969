"""Edit a clip until a measured goal is reached: "+3 dB", "+2 semitones", "20 % brighter"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hooks import AudioFileError, Clip
from hooks.model import Codec
from steer.acoustics import Acoustics, change, measure
from steer.calibrate import Calibration, calibrate
from steer.edits import Edit, Shift, Span, as_spans
from steer.steered import SteeredModel
from steer.vectors import ControlVector


@dataclass(frozen=True)
class Reached:
    """What a search led to: the sound without and with the edit, both measured."""

    calibration: Calibration
    before: Clip
    after: Clip
    acoustics: tuple[Acoustics, Acoustics]


def shifts(
    vectors: Mapping[str, ControlVector], strengths: Mapping[str, float], during: Sequence[Span] | None = None
) -> list[Shift]:
    """One `Shift` per vector whose strength is not 0."""
    return [Shift(vectors[name].vector, strength, during=during) for name, strength in strengths.items() if strength]


def as_rows(model: Codec, clip: Clip) -> Tensor:
    """A clip as the codec takes it, [B, C, N]: a mono codec gets each channel as a row of the batch."""
    assert model.sample_rate is not None
    clip = clip.resampled(model.sample_rate)
    if model.channels == 1:
        return clip.waveform[:, None].to(model.device, model.dtype)
    return clip.mixed(model.channels).waveform[None].to(model.device, model.dtype)


def stretch(waveform: Tensor, sample_rate: int, during: Sequence[Span] | None) -> Tensor:
    """The parts of [C, N] that lie in the spans, one behind the other; all of it without spans."""
    if during is None:
        return waveform
    parts = [waveform[:, int(start * sample_rate) : int(end * sample_rate)] for start, end in during]
    return torch.cat(parts, dim=1)


@torch.no_grad()
def reach(
    steered: SteeredModel,
    vectors: Mapping[str, ControlVector],
    clip: Clip,
    goals: Mapping[str, float],
    *,
    edits: Sequence[Edit] = (),
    site: str | None = None,
    keep: bool = False,
    during: Span | Sequence[Span] | None = None,
    pitch: bool = True,
) -> Reached:
    """Search the strengths at which the edited clip has the wanted measured changes.

    The sound without the edit is the codec's plain round trip, or with `keep` the clip itself: then only the difference
    that the edit makes is added to it. With `during` the edit and the measurements are limited to those spans. `edits`
    are applied beside the goals' own.

    Raises:
        AudioFileError: a clip that ends before the spans begin.
    """
    model = steered.model
    assert isinstance(model, Codec) and model.sample_rate is not None
    rate, spans = model.sample_rate, as_spans(during)
    audio_BCN = as_rows(model, clip)
    plain_CN = model.run(audio_BCN).flatten(0, 1).float()
    base_CN = audio_BCN.flatten(0, 1).float() if keep else plain_CN
    if not stretch(base_CN, rate, spans).numel():
        raise AudioFileError(f"{clip.name or 'clip'}: is over before the edited spans begin")
    before = measure(stretch(base_CN, rate, spans), rate, pitch)
    # loudness is quick to measure; pitch is measured in the search only if it is a goal
    quick = pitch and "pitch" in goals

    def render(strengths: Mapping[str, float]) -> Tensor:
        with steered.edit(*edits, *shifts(vectors, strengths, spans), site=site):
            edited_CN = model.run(audio_BCN).flatten(0, 1).float()
        return base_CN + (edited_CN - plain_CN) if keep else edited_CN

    def trial(strengths: Mapping[str, float]) -> dict[str, float | None]:
        return change(before, measure(stretch(render(strengths), rate, spans), rate, quick))

    calibration = calibrate(goals, trial, [name for name in ("loudness", "pitch", "brightness") if name in vectors])
    after_CN = render(calibration.strengths)
    after = measure(stretch(after_CN, rate, spans), rate, pitch)
    return Reached(calibration, Clip(base_CN, rate, clip.name), Clip(after_CN, rate, clip.name), (before, after))
