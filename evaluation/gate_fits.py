"""Gates and edits of `evaluation.gate_study`: fitted on training clips, chosen on validation clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evaluation.dataset import LabelledSound
from evaluation.gate_methods import Decision, decide, fitted_shift, random_gate, ranked_features, silenced
from evaluation.passes import Kept, Passes
from evaluation.report import Progress
from evaluation.texts import Texts
from evaluation.transcripts import Clips, Heard, alarm_rate
from steer.edits import AddDirection, Edit
from steer.gate_fit import Pooled, fit_gate
from steer.gates import Gate
from steer.steered import SteeredModel

MEANS, ALPHAS, RANKED = (1.0, 2.0, 4.0, 8.0), (2.0, 4.0, 8.0, 0.0), 30
"""Strengths of the difference of means; factors of ranked features, and how many features."""
NOTHING, ALL, ACTIVATION, VAD = "nothing", "gate on features", "gate on the activation", "Silero VAD"
SHIFT, BY_SECOND = "fitted shift", "gate by the second"


@dataclass
class Study:
    """Clips, what is known of them, and the methods as far as they are fitted."""

    steered: SteeredModel
    train: Clips
    valid: Clips
    test: Clips
    site: str
    texts: Texts
    kept: Kept
    seed: int
    progress: Progress
    edits: dict[str, tuple[Edit, ...]] = field(default_factory=dict)
    gates: dict[str, Gate] = field(default_factory=dict)
    passes: Passes = field(init=False)

    def __post_init__(self) -> None:
        self.passes = Passes(self.steered, self.site, self.kept)

    def heard(self, sounds: Sequence[LabelledSound], decision: Decision | None, edit: str = "") -> list[Heard]:
        """What is written of sounds: where the decision is open by an edit, elsewhere as it is. Without a decision all
        by the edit, without an edit's name nothing where it is open."""
        plain = self.texts.of(NOTHING, sounds, None, self.progress)
        if decision is None and not edit:
            return plain
        opened = [sound for sound in sounds if decision is None or decision.opens(sound)]
        names = [sound.name for sound in opened]
        if edit:
            applied = partial(self.steered.edit, *self.edits[edit], site=self.site)
            found = dict(zip(names, self.texts.of(edit, opened, applied, self.progress), strict=True))
        else:
            found = {sound.name: silenced(one) for sound, one in zip(sounds, plain, strict=True) if sound.name in names}
        return [found.get(sound.name, one) for sound, one in zip(sounds, plain, strict=True)]


def fit_gates(
    study: Study, fit: Clips, seen: Mapping[str, tuple[Pooled, Pooled]], ks: Sequence[int], draws: int
) -> tuple[dict[str, Gate], dict[str, dict[str, Decision]]]:
    """Gates by name, and their decisions on validation and test clips, {split: {name: decision}}."""
    truth = {clips.split: is_silent(clips) for clips in (fit, study.valid, study.test)}
    examples, others = seen[fit.split], seen[study.valid.split]
    labels, held_out = truth[fit.split], truth[study.valid.split]
    gates = {ALL: fit_gate(examples[0], labels, held_out=(others[0], held_out))}
    for k in ks:
        gates[f"gate on {k} features"] = fit_gate(examples[0], labels, k, held_out=(others[0], held_out))
    gates[ACTIVATION] = fit_gate(examples[1], labels, held_out=(others[1], held_out))
    for draw in range(draws):
        largest = gates[f"gate on {max(ks)} features"]
        gate = random_gate(largest, examples[0], labels, (others[0], held_out), study.seed + draw)
        gates[f"gate on {max(ks)} random features, draw {draw + 1}"] = gate
    decisions = {
        clips.split: {
            name: decide(gate, seen[clips.split][name == ACTIVATION], [sound.name for sound in clips.all])
            for name, gate in gates.items()
        }
        for clips in (study.valid, study.test)
    }
    study.gates = gates
    return gates, decisions


def is_silent(clips: Clips) -> Tensor:
    return torch.arange(len(clips.all)) < len(clips.silent)


def choose_edits(
    study: Study,
    fit: Clips,
    seen: tuple[Pooled, Pooled],
    decision: Decision,
    options: Mapping[str, Any],
    steps: int,
) -> AddDirection:
    """Fit and choose what is done behind a gate: of each kind the strength with the fewest false alarms on validation
    clips on which the gate opens, of equals the weakest."""
    shift = AddDirection(
        study.kept.of(
            f"{SHIFT}, {steps} steps",
            partial(fitted_shift, study.steered, fit.silent, options, study.site, steps, study.seed, study.progress),
        )
    )
    study.edits[SHIFT] = (shift,)
    x_ND, silent_N = seen[1].values[:, 0], is_silent(fit)
    means_D = x_ND[silent_N].mean(0) - x_ND[~silent_N].mean(0)
    ladders: dict[str, list[tuple[Edit, ...]]] = {
        "difference of means": [(AddDirection(means_D, strength),) for strength in MEANS],
        "ranked features": [ranked_features(seen[0], silent_N, RANKED, alpha) for alpha in ALPHAS],
    }
    opened = [sound for sound in study.valid.silent if decision.opens(sound)]
    for name, ladder in ladders.items():
        found = []
        for number, edits in enumerate(ladder):
            study.edits[f"{name} {number}"] = edits
            found.append(alarm_rate(study.heard(opened, None, f"{name} {number}")) if opened else 0.0)
        study.edits[name] = ladder[int(np.argmin(found))]
        for number in range(len(ladder)):
            del study.edits[f"{name} {number}"]
    return shift
