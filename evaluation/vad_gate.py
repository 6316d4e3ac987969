"""A gate before a recogniser: only sounds in which a voice activity detector finds speech are transcribed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from evaluation.dataset import LabelledSound
from evaluation.report import Progress
from evaluation.steering_search import Trial
from evaluation.transcripts import Clips, Heard, Score
from hooks.clip import as_clip
from hooks.errors import require

RATE = 16_000
"""Hz, of the samples that a detector takes."""
OWN_THRESHOLD = 0.5
"""Silero's own: a probability of speech."""

Detector = Callable[[Tensor], float]
"""The highest threshold, from 0 to 1, at which there is speech in samples [N] at `RATE`; 0 if there is none."""


@dataclass(frozen=True)
class Gate:
    """Lets sounds through in which there is speech at a threshold."""

    threshold: float
    features: ClassVar[int] = 0

    @property
    def strength(self) -> float:
        return self.threshold

    def __str__(self) -> str:
        return f"threshold {self.threshold:.3g}"


def silero() -> Detector:
    """Silero's VAD: the largest probability of speech that it gives of any 32 ms. As in faster-whisper there is no
    minimum length of speech: with Silero's own, 250 ms, many spoken digits are lost.

    Raises:
        MissingExtraError: `silero-vad` is not installed.
    """
    vad = require("silero_vad", "eval").load_silero_vad()
    return lambda audio_N: float(vad.audio_forward(audio_N[None], RATE).max())


def detected(detector: Detector, sounds: Sequence[LabelledSound], progress: Progress = iter) -> list[float]:
    """What the detector gives for each sound. Raises AudioFileError for one that cannot be read."""
    return [
        detector(as_clip(sound.source, RATE).resampled(RATE).mixed(1).waveform[0]) for sound in progress(list(sounds))
    ]


def gated(heard: Sequence[Heard], found: Sequence[float], gate: Gate) -> list[Heard]:
    """What is left of transcripts where only sounds that the gate lets through are transcribed."""
    return [
        one if highest >= gate.threshold else replace(one, text="", words=(), no_speech_prob=None)
        for one, highest in zip(heard, found, strict=True)
    ]


def trials(clips: Clips, heard: Sequence[Heard], found: Sequence[float], thresholds: Sequence[float]) -> list[Trial]:
    """What gates of these thresholds do to what was heard without one."""
    tried = []
    for threshold in thresholds:
        gate = Gate(threshold)
        score = Score.of(clips, gated(heard, found, gate))
        tried.append(Trial(gate, score.wer, float(score.alarms_N.mean())))
    return tried
