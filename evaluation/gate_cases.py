"""Cases of `evaluation.gate_study`: test clips as they are, and hard ones made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from evaluation.dataset import LabelledSound
from evaluation.gate_fits import ACTIVATION, ALL, BY_SECOND, NOTHING, VAD, Study, is_silent
from evaluation.gate_long import by_second
from evaluation.gate_methods import Decision, decide, frequent_texts, silenced, thresholded
from evaluation.gate_rows import row
from evaluation.gate_vad import vad_on
from evaluation.report import Row
from evaluation.steering_search import Limit, as_many
from evaluation.transcripts import (
    Clips,
    Heard,
    Score,
    errors_in,
)
from evaluation.vad_gate import OWN_THRESHOLD
from steer.edits import AddDirection, Edit
from steer.gate_fit import Pooled, fit_gate
from steer.gates import Gate

NO_SPEECH, LOGPROB = (0.02, 0.95), (None, -1.0)


def clean(study: Study, decisions: Mapping[str, Mapping[str, Decision]], vad: Decision | None) -> list[Row]:
    """Every method on the test clips as they are."""
    valid, test = study.valid.transcribed, study.test
    plain, plain_valid = study.heard(test.all, None), study.heard(valid.all, None)
    methods: dict[str, tuple[list[Heard], Decision | None, str]] = {NOTHING: (plain, None, "")}
    sae = partial(study.steered.edit, mode="reconstruct", padding=False)
    methods["SAE reconstruction"] = (study.texts.of("reconstruction", test.all, sae, study.progress), None, "")
    for name, decision in decisions[test.split].items():
        methods[f"{name}, fitted shift"] = (study.heard(test.all, decision, "fitted shift"), decision, "")
    if BY_SECOND in study.edits:
        opened = by_second(study, test.all)
        methods[BY_SECOND] = (study.heard(test.all, opened, BY_SECOND), opened, "")
    for name in study.edits:
        if name == BY_SECOND:
            continue
        edits = ", ".join(map(short, study.edits[name]))
        if name != "fitted shift":
            heard = study.heard(test.all, decisions[test.split][ALL], name)
            methods[f"{ALL}, {name}"] = (heard, decisions[test.split][ALL], edits)
        methods[f"{name}, no gate"] = (study.heard(test.all, None, name), None, edits)
    methods["thresholds, default"] = ([thresholded(one, 0.6, -1.0) for one in plain], None, "0.6 and -1")
    limit = Limit.of(None, int(errors_in(valid.speech, plain_valid[len(valid.silent) :])[1].sum()))
    best = best_thresholds(valid, plain_valid, limit)
    if best is not None:
        methods["thresholds, chosen"] = ([thresholded(one, *best) for one in plain], None, f"{best[0]:g} and {best[1]}")
    if vad is not None:
        chosen = vad_on(study, test.all, vad.threshold)
        for name, found in (("", replace(chosen, threshold=-OWN_THRESHOLD)), (", chosen", chosen)):
            methods[f"{VAD}{name}"] = (study.heard(test.all, found), found, f"threshold {-found.threshold:.3g}")
    fit_heard = study.texts.of(NOTHING, study.train.silent, None, study.progress)
    phrases = frequent_texts(fit_heard)
    suppressed = [silenced(one) if one.words in phrases else one for one in plain]
    methods["frequent texts suppressed"] = (suppressed, None, f"{len(phrases)} texts")
    return [
        row("clean", name, choice, test.silent, test.speech, heard, plain, decision)
        for name, (heard, decision, choice) in methods.items()
    ]


def short(edit: Edit) -> str:
    return f"strength {edit.strength:g}" if isinstance(edit, AddDirection) else str(edit).partition("(")[0]


def best_thresholds(valid: Clips, plain: Sequence[Heard], limit: Limit) -> tuple[float, float | None] | None:
    """Of as many as there are, the thresholds with the fewest false alarms within the limit of word errors."""
    before = Score.of(valid, plain)
    found: list[tuple[float, float, tuple[float, float | None]]] = []
    for logprob in LOGPROB:
        for no_speech in as_many(*NO_SPEECH, 30):
            score = Score.of(valid, [thresholded(one, no_speech, logprob) for one in plain])
            if score.errors_M.sum() <= before.errors_M.sum() + limit.words:
                found.append((float(score.alarms_N.sum()), -no_speech, (no_speech, logprob)))
    return min(found, key=lambda one: one[:2])[2] if found else None


def case(
    study: Study,
    name: str,
    silent: Sequence[LabelledSound],
    speech: Sequence[LabelledSound],
    gates: Mapping[str, Gate],
    vad: Decision | None,
) -> list[Row]:
    """The recogniser as it is, some gates with the fitted shift, and Silero, on other sounds."""
    sounds = [*silent, *speech]
    plain = study.heard(sounds, None)
    rows = [row(name, NOTHING, "", silent, speech, plain, plain, None)]
    both = study.passes.of(sounds, study.progress)
    for kind, gate in gates.items():
        decision = decide(gate, both[kind == ACTIVATION], [sound.name for sound in sounds])
        heard = study.heard(sounds, decision, "fitted shift")
        rows.append(row(name, f"{kind}, fitted shift", "", silent, speech, heard, plain, decision))
    if BY_SECOND in study.edits:
        decision = by_second(study, sounds)
        rows.append(row(name, BY_SECOND, "", silent, speech, study.heard(sounds, decision, BY_SECOND), plain, decision))
    if vad is not None:
        decision = vad_on(study, sounds, vad.threshold)
        rows.append(row(name, f"{VAD}, chosen", "", silent, speech, study.heard(sounds, decision), plain, decision))
    return rows


def left_out_classes(study: Study, fit: Clips, seen: Mapping[str, tuple[Pooled, Pooled]], k: int) -> list[Row]:
    """Gates that were fitted and given a threshold without one class of sounds, on the test clips of that class."""
    rows: list[Row] = []
    labels = [sound.labels.get("label", "") for sound in fit.all]
    truth, truth_valid = is_silent(fit), is_silent(study.valid)
    for label in sorted({sound.labels.get("label", "") for sound in study.test.silent} - {""}):
        places = [n for n, sound in enumerate(study.test.silent) if sound.labels.get("label") == label]
        kept = torch.tensor(
            [silent is False or one != label for one, silent in zip(labels, truth.tolist(), strict=True)]
        )
        kept_valid = torch.tensor([sound.labels.get("label") != label for sound in study.valid.all]) | ~truth_valid
        sounds = [study.test.silent[n] for n in places]
        plain = study.heard(sounds, None)
        rows.append(row(f"class left out: {label}", NOTHING, "", sounds, [], plain, plain, None))
        for name, index, count in ((ALL, 0, None), (f"gate on {k} features", 0, k), (ACTIVATION, 1, None)):
            examples, others = only(seen[fit.split][index], kept), only(seen[study.valid.split][index], kept_valid)
            gate = fit_gate(examples, truth[kept], count, held_out=(others, truth_valid[kept_valid]))
            logits_N = seen[study.test.split][index].logits(gate.probe)[places]
            decision = Decision(dict(zip([s.name for s in sounds], logits_N.tolist(), strict=True)), gate.threshold)
            heard = study.heard(sounds, decision, "fitted shift")
            rows.append(
                row(f"class left out: {label}", f"{name}, fitted shift", "", sounds, [], heard, plain, decision)
            )
    return rows


def only(examples: Pooled, kept_N: Tensor) -> Pooled:
    return replace(examples, values=examples.values[kept_N], sounds=torch.arange(int(kept_N.sum())))
