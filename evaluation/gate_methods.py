"""What can be done about invented words once a gate decides where: gates of several kinds, the edits behind them, and
the guards that need no SAE. `evaluation.gate_study` compares them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evaluation.auroc import auroc
from evaluation.dataset import LabelledSound
from evaluation.report import Progress
from evaluation.steering_fit import Exercises, frozen, pushed, varied
from evaluation.transcripts import Heard
from steer.edits import Edit, Scale
from steer.gate_fit import Pooled, fit_gate, threshold_for
from steer.gates import Gate
from steer.steered import SteeredModel

BATCH, RATE, STEPS = 5, 0.08, 40
"""Clips a step, Adam's learning rate and the steps of a fitted shift."""
PHRASES = 30
"""How many of the most frequent invented texts are suppressed."""


# --- edits ---


def fitted_shift(
    steered: SteeredModel,
    silent: Sequence[LabelledSound],
    options: Mapping[str, Any],
    site: str,
    steps: int = STEPS,
    seed: int = 0,
    progress: Progress = iter,
) -> Tensor:
    """The vector [D] under which a Whisper says of clips without speech that there is none; speech has no part in it,
    since a gate keeps the edit from speech. (The loss is that of `evaluation.steering_fit` for such clips.)"""
    exercises, rng = Exercises(steered, options), np.random.default_rng(seed)
    width = int(steered.model.site(site).width or 0)
    vector_D = torch.zeros(width, device=steered.model.device, requires_grad=True)
    optimizer = torch.optim.Adam([vector_D], lr=RATE)
    rate = steered.model.sample_rate or 0
    with frozen(steered.model.module, *steered.saes.values()), torch.enable_grad():
        for _ in progress(list(range(steps))):
            optimizer.zero_grad()
            for index in rng.choice(len(silent), size=min(BATCH, len(silent)), replace=False):
                window = exercises.window(varied(silent[index].source, rate, rng))
                loss = exercises.silent(window, timed=bool(rng.integers(2)))
                with pushed(steered, {site: vector_D}, "activation"):
                    (loss() / BATCH).backward()
            optimizer.step()
    return vector_D.detach().cpu()


def ranked_features(pooled: Pooled, is_silent_N: Tensor, count: int, alpha: float) -> tuple[Edit, ...]:
    """AudioSAE's steering (arXiv 2602.05027): the features that tell silent clips best, times alpha."""
    f_NF = pooled.values[:, 0]
    score_F = auroc(f_NF, is_silent_N[None])[0]
    live_F = (f_NF != 0).any(0)
    best = (score_F * live_F).topk(min(count, int(live_F.sum()))).indices
    return (Scale(best.tolist(), alpha),)


# --- gates ---


def random_gate(gate: Gate, examples: Pooled, labels_N: Tensor, valid: tuple[Pooled, Tensor], seed: int) -> Gate:
    """As many features, drawn from those that fire and are not in the gate, fitted and given a threshold likewise."""
    own = set(gate.probe.features or ())
    live = [f for f in (examples.values[:, 0] != 0).any(0).nonzero()[:, 0].tolist() if f not in own]
    chosen = sorted(np.random.default_rng(seed).choice(live, min(len(own), len(live)), replace=False).tolist())
    part, others = (replace(one, values=one.values[:, :, chosen]) for one in (examples, valid[0]))
    drawn = fit_gate(part, labels_N, held_out=(others, valid[1]))
    picked = [chosen[index] for index in drawn.probe.features or ()]
    return replace(drawn, probe=replace(drawn.probe, features=picked))


@dataclass(frozen=True)
class Decision:
    """Which sounds a gate opens on: logits of sounds by name, and a threshold."""

    logits: Mapping[str, float]
    threshold: float

    def opens(self, sound: LabelledSound) -> bool:
        return self.logits[sound.name] > self.threshold


def decide(gate: Gate, pooled: Pooled, names: Sequence[str]) -> Decision:
    logits_N = pooled.logits(gate.probe)
    return Decision(dict(zip(names, logits_N.tolist(), strict=True)), gate.threshold)


def by_scores(scores: Mapping[str, float], speech: Sequence[LabelledSound]) -> Decision:
    """A gate on a score of speech, open where it is low; its threshold is chosen on clips with speech as that of a
    fitted gate is."""
    logits = {name: -score for name, score in scores.items()}
    values_N = torch.tensor([logits[name] for name in scores])
    names = {sound.name for sound in speech}
    false_N = torch.tensor([name in names for name in scores])
    return Decision(logits, threshold_for(values_N, false_N))


# --- guards without a gate ---


def thresholded(heard: Heard, no_speech: float, logprob: float | None = None) -> Heard:
    """openai-whisper's guard for a sound of one window: it is skipped where `no_speech_prob` is above a threshold,
    unless the mean log-probability of its words is above the other."""
    sure = logprob is not None and heard.logprob is not None and heard.logprob > logprob
    return silenced(heard) if (heard.no_speech_prob or 0.0) > no_speech and not sure else heard


def frequent_texts(heard: Sequence[Heard], count: int = PHRASES) -> set[tuple[str, ...]]:
    """The most frequent texts that were written of sounds without speech."""
    return {words for words, _ in Counter(one.words for one in heard if one.words).most_common(count)}


def silenced(heard: Heard) -> Heard:
    return replace(heard, text="", words=())
