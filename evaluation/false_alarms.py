"""`steer evaluate false-alarms`: words that a recogniser writes where nobody speaks, and what takes them away.

Features are ranked, or their factors are fitted (`evaluation.steering_fit`; Whispers only), on training clips, an edit
is chosen on validation clips (`evaluation.steering_search` says from which candidates and by what rule), and everything
is measured on test clips that had no part in that. Beside the edit stand the recogniser as it is, the SAE's
reconstruction without an edit at the same sites, the best of the ranked edits alone, activation steering by the
difference of means and by fitted vectors, random features that are as many and move the activation as far,
openai-whisper's own thresholds, and a gate by Silero's voice activity detector; these two as they come, too. All are
chosen by the same rule from as many candidates as the SAEs' edits.

What an edit costs is told by the WER of all clips with speech, and by that the edit is chosen. The WER of those that
the recogniser is able to write, of which it gets at least half of the words right when nothing is edited (all if there
are none), stands beside it: words that were wrong anyway come and go by luck. That choice of clips can only make a cost
look higher, since among them are some that were right by luck.

Two counts of false alarms: clips without speech with any word (`evaluation.transcripts`), and, where the library tells
`no_speech_prob`, clips where that is below 0.5, which is AudioSAE's count (arXiv 2602.05027). Intervals resample the
speakers of the test clips, where they are named, then clips, and the draws of random features
(`evaluation.transcripts.over_clips`); what is compared with the baseline is compared clip by clip.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from evaluation.alarm_rows import able, row, trial_row, written
from evaluation.random_features import random_like
from evaluation.report import Progress, Report
from evaluation.separation import separate
from evaluation.steering_fit import What, fit
from evaluation.steering_search import Limit, Method, Steering, Thresholds, Trial, as_many, choose, climb, ladders
from evaluation.transcripts import Clips, FalseAlarmError, Heard, Score, defaults, listen
from evaluation.vad_gate import OWN_THRESHOLD, Detector, Gate, detected, gated, silero
from evaluation.vad_gate import trials as vad_trials
from hooks.errors import MissingExtraError
from hooks.families.whisper import Whisper, WhisperPackage
from hooks.model import Transcriber
from steer.recipe import Recipe
from steer.steered import SteeredModel
from steer.vectors import ControlVector, save_vectors

KINDS = ("shift", "scale")
VAD = "Silero VAD gate"
COUNTS, STRENGTHS = (10, 30, 100, 300), (1.0, 3.0, 9.0)
FIT_STRENGTHS = (0.5, 0.625, 0.75, 0.875, 1.0, 1.25)
FIT_STEPS = 400
NO_SPEECH_THRESHOLDS = (0.95, 0.02)
"""Tried from mild to strict, whatever the words' probability."""
VAD_THRESHOLDS = (0.05, 0.95)
LIBRARY_DEFAULT = Thresholds(0.6, -1.0)


@dataclass(frozen=True)
class Outcome:
    """The table, and the SAE steering that was chosen, or None where no candidate was better than nothing."""

    report: Report
    steering: Steering | None

    def recipe(self, base: Recipe, vectors: Path) -> Recipe | None:
        """The chosen steering for the model and SAEs of `base`; the vectors of a shift are written to `vectors`.

        Raises:
            EditError: that file cannot be written.
        """
        if self.steering is None:
            return None
        steering, edits = self.steering, []
        if steering.kind == "shift":
            save_vectors(
                {site: ControlVector(v, site, "false alarms", site) for site, v in steering.vectors.items()}, vectors
            )
            path = os.path.relpath(vectors)
            edits = [{"shift": f"{path}#{s}", "strength": steering.strength, "site": s} for s in steering.vectors]
        else:
            for site, each in steering.factors().items():
                factors = {feature: factor for factor, features in each.items() for feature in features}
                edits.append({"scale": factors, "site": site})
        model, saes = base.located(base.model), {site: base.located(base.saes[site]) for site in steering.vectors}
        return Recipe.build({"model": model, "saes": saes, "edits": edits}, str(vectors))


def evaluate(
    steered: SteeredModel,
    train: Clips,
    valid: Clips,
    test: Clips,
    *,
    words: int | None = None,
    kinds: Sequence[str] = KINDS,
    counts: Sequence[int] = COUNTS,
    strengths: Sequence[float] = STRENGTHS,
    draws: int = 5,
    fit_steps: int = FIT_STEPS,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    detector: Callable[[], Detector] = silero,
    progress: Progress = iter,
) -> Outcome:
    """Choose a steering by the SAEs of `steered` that makes at most `words` word errors more on `valid` (`Limit.of`),
    and measure it and all that it is compared with on `test`.

    `options` are added to those of the transcription. In the report `clips` holds what each method wrote of each test
    clip, `about` all trials on the validation clips, the draws and what was left out. Cost: up to four times
    ((sites + 1) x kinds + counts) x strengths + the fitted strengths passes over `valid`, less those that costly edits
    end early, and two fits of `fit_steps` (none if that is 0).

    Raises:
        FalseAlarmError: a model that writes no words, or an SAE that does not fit.
        AudioFileError: a clip that cannot be read.
        MissingExtraError: openai-whisper (for its normaliser) or jiwer is not installed.
    """
    model = steered.model
    if not isinstance(model, Transcriber):
        raise FalseAlarmError(
            f"{model.name} is a {model.kind} and writes no words; pass a recogniser, such as a Whisper"
        )
    chosen_options = {**defaults(model), **(options or {})}
    separations = separate(steered, train, progress)

    def hear(clips: Clips, method: Method | None = None) -> list[Heard]:
        with method.applied(steered) if method else nullcontext():
            return listen(model, clips.all, {**chosen_options, **(method.options if method else {})}, progress)

    valid_heard = hear(valid)
    valid_score = Score.of(valid, valid_heard)
    plain = Trial(None, valid_score.wer, float(valid_score.alarms_N.mean()))
    limit = Limit.of(words, int(valid_score.lengths_M.sum()))
    trials: list[Trial] = []

    def best(candidates: Sequence[Sequence[Method]], before: Trial = plain) -> Trial:
        tried = [climb(steered, ladder, valid, plain, limit, chosen_options) for ladder in progress(list(candidates))]
        found = [trial for ladder in tried for trial in ladder]
        trials.extend(found)
        return choose([before, *found], plain, limit)

    middle, others = sorted(counts)[len(counts) // 2], sorted(counts)
    others.remove(middle)
    ranked = ladders(separations, kinds, [middle], strengths)
    fits = bool(fit_steps) and isinstance(model, Whisper)
    # so many candidates has the steering by features, and so many has each of what it is compared with
    candidates = (len(ranked) + len(others)) * len(strengths) + fits * len(FIT_STRENGTHS)
    found = best(ranked)
    if isinstance(found.method, Steering):
        group = list(found.method.vectors)
        found = best(ladders(separations, [found.method.kind], others, strengths, [group]), found)
    groups = len(ladders(separations, ["activation"], [], strengths))
    finer = as_many(min(strengths), max(strengths), max(len(strengths), -(-candidates // max(groups, 1))))
    methods: dict[str, Method | None] = {
        "activation steering": method_of(best(ladders(separations, ["activation"], [], finer)))
    }
    left_out = {}
    if fits:

        def fitted(kind: str, what: What, each: Sequence[float]) -> list[Sequence[Method]]:
            vectors = fit(steered, train, chosen_options, what, steps=fit_steps, seed=seed, progress=progress)
            used = {site: vector.cpu() for site, vector in vectors.items() if vector.any()}
            return [[Steering(kind, used, strength)] for strength in each] if used else []

        methods["ranked features"] = method_of(found)
        found = best(fitted("gain", "features", FIT_STRENGTHS), found)
        finer = as_many(min(FIT_STRENGTHS), max(FIT_STRENGTHS), candidates)
        methods["activation steering, fitted"] = method_of(best(fitted("push", "activation", finer)))
    else:
        left_out["fitted steering"] = "no steps were asked for" if not fit_steps else f"{model.name} is no Whisper"
    steering = found.method
    assert steering is None or isinstance(steering, Steering)
    methods = {"SAE steering": steering, **methods}
    if isinstance(model, WhisperPackage):
        methods["thresholds, default"] = LIBRARY_DEFAULT
        strict = [Thresholds(threshold) for threshold in as_many(*NO_SPEECH_THRESHOLDS, candidates)]
        methods["thresholds, chosen"] = method_of(best([strict]))
    else:
        left_out["thresholds"] = f"{model.name} is not openai-whisper's"

    heard = {"baseline": hear(test)}
    sites = list(steering.vectors) if steering else list(steered.saes)
    alone = SteeredModel(model, {site: steered.saes[site] for site in sites}, check=False)
    with alone.edit(mode="reconstruct", padding=False):  # SAEs are trained without padding
        heard["SAE reconstruction"] = hear(test)
    heard |= {name: hear(test, method) if method else heard["baseline"] for name, method in methods.items()}
    nothing = "nothing better within the limit"
    choices = {
        "baseline": "-",
        "SAE reconstruction": f"no edit, at {', '.join(sites)}",
        **{name: str(method or nothing) for name, method in methods.items()},
        "random features": f"as SAE steering, mean of {draws} draws",
        VAD: f"its own settings, threshold {OWN_THRESHOLD:g}",
    }
    try:
        detect = detector()
        tried = vad_trials(valid, valid_heard, detected(detect, valid.all, progress), grid(VAD_THRESHOLDS, candidates))
        trials.extend(tried)
        gate, speech = choose(tried, plain, limit).method, detected(detect, test.all, progress)
        heard[VAD] = gated(heard["baseline"], speech, Gate(OWN_THRESHOLD))
        chosen = gated(heard["baseline"], speech, gate) if isinstance(gate, Gate) else heard["baseline"]
        heard[f"{VAD}, chosen"] = chosen
        choices[f"{VAD}, chosen"] = str(gate or nothing)
    except MissingExtraError as error:
        left_out[VAD] = str(error)
    scores = {name: Score.of(test, one) for name, one in heard.items()}
    drawn: list[Score] = []
    if steering and draws:
        rng = np.random.default_rng(seed)
        chance = [random_like(steering, steered, separations, rng) for _ in range(draws)]
        drawn = [Score.of(test, hear(test, one)) for one in chance if one]
        if drawn:
            scores["random features"] = Score.drawn(drawn)
        else:
            left_out["random features"] = "no other features fire there"
    else:
        left_out["random features"] = "no draws were asked for" if steering else "no SAE steering was chosen"

    about = {
        "model": model.name,
        "sites": list(steered.saes),
        "options": chosen_options,
        "clips": {clips.split: [len(clips.silent), len(clips.speech)] for clips in (train, valid, test)},
        "word errors may rise by": str(limit),
        "candidates each": candidates,
        "random draws": [{"false alarms": float(one.alarms_N.mean()), "WER": one.wer} for one in drawn],
        "baseline on validation clips": {"false alarms": plain.alarms, "WER": plain.wer},
        "left out": left_out,
        "trials": [trial_row(trial) for trial in trials],
    }
    able_M = able(scores["baseline"])
    rows = [
        row(name, choice, scores[name], scores["baseline"], able_M)
        for name, choice in choices.items()
        if name in scores
    ]
    title = (
        f"False alarms of {model.name}: {len(test.silent)} clips without speech, {len(test.speech)} with, "
        f"of which it can write {able_M.sum()}"
    )
    return Outcome(Report(title, rows, written(test, heard), about), steering)


def method_of(trial: Trial) -> Method | None:
    """What was tried; it was one to transcribe by."""
    return cast(Method | None, trial.method)


def grid(ends: tuple[float, float], count: int) -> list[float]:
    return np.linspace(*ends, max(count, 2)).round(3).tolist()
