"""Silero's voice activity detector as a gate of `evaluation.gate_study`."""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.dataset import LabelledSound
from evaluation.gate_fits import Study
from evaluation.gate_methods import Decision, by_scores
from evaluation.vad_gate import detected, silero
from hooks.errors import MissingExtraError


def best_vad(study: Study) -> Decision | None:
    """Silero at the highest threshold at which no validation clip with speech is lost; None without Silero."""
    try:
        scores = detected(silero(), study.valid.all, study.progress)
    except MissingExtraError:
        return None
    return by_scores(dict(zip([s.name for s in study.valid.all], scores, strict=True)), study.valid.speech)


def vad_on(study: Study, sounds: Sequence[LabelledSound], threshold: float) -> Decision:
    scores = detected(silero(), sounds, study.progress)
    return Decision({sound.name: -score for sound, score in zip(sounds, scores, strict=True)}, threshold)
