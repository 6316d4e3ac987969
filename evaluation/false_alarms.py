"""`steer evaluate false-alarms`: words that a recogniser writes where nobody speaks, and what takes them away.

Features are ranked, or their factors are fitted (`evaluation.steering_fit`; Whispers only), on training clips, an edit
is chosen on validation clips (`evaluation.steering_search` says from which candidates and by what rule), and everything
is measured on test clips that had no part in that. Beside the edit stand the recogniser as it is, the SAE's
reconstruction without an edit at the same sites, the best of the ranked edits alone, activation steering by the
difference of means and by fitted vectors (chosen by the same rule), random features of the same number with the same
factors, openai-whisper's own thresholds (as they come, and chosen by the same rule), and a gate by Silero's voice
activity detector, as it comes.

What an edit costs is told by the WER of all clips with speech, and by that the edit is chosen. The WER of those that
the recogniser is able to write, of which it gets at least half of the words right when nothing is edited (all if there
are none), stands beside it: words that were wrong anyway come and go by luck. That choice of clips can only make a cost
look higher, since among them are some that were right by luck.

Two counts of false alarms: clips without speech with any word (`evaluation.transcripts`), and, where the library tells
`no_speech_prob`, clips where that is below 0.5, which is AudioSAE's count (arXiv 2602.05027). Intervals are bootstraps
over the test clips; what is compared with the baseline is compared clip by clip.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from evaluation.ablation import Progress
from evaluation.report import Interval, Report, Row, Share
from evaluation.steering_fit import What, fit
from evaluation.steering_search import (
    Method,
    Steering,
    Thresholds,
    Trial,
    choose,
    climb,
    ladders,
    random_like,
    separate,
)
from evaluation.transcripts import (
    Clips,
    FalseAlarmError,
    Heard,
    Score,
    defaults,
    drop,
    listen,
    over_clips,
    ratio,
    rise_in_points,
)
from hooks.clip import as_clip
from hooks.errors import MissingExtraError, require
from hooks.families.whisper import Whisper, WhisperPackage
from hooks.model import Transcriber
from steer.recipe import Recipe
from steer.steered import SteeredModel
from steer.vectors import ControlVector, save_vectors

KINDS = ("shift", "scale")
COUNTS, STRENGTHS = (10, 30, 100, 300), (1.0, 3.0, 9.0)
FIT_STRENGTHS = (0.5, 0.625, 0.75, 0.875, 1.0, 1.25)
FIT_STEPS = 400
NO_SPEECH_THRESHOLDS = (0.9, 0.8, 0.6, 0.4, 0.2, 0.1, 0.05)
"""Tried from mild to strict, whatever the words' probability."""
LIBRARY_DEFAULT = Thresholds(0.6, -1.0)
VAD_RATE = 16_000

Gate = Callable[[Tensor], bool]
"""Whether there is speech in samples [N] at `VAD_RATE`."""


def silero_gate() -> Gate:
    """Silero's VAD with its own settings. Raises MissingExtraError if `silero-vad` is not installed."""
    silero = require("silero_vad", "eval")
    vad = silero.load_silero_vad()
    return lambda audio_N: bool(silero.get_speech_timestamps(audio_N, vad, sampling_rate=VAD_RATE))


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
    points: float = 0.5,
    kinds: Sequence[str] = KINDS,
    counts: Sequence[int] = COUNTS,
    strengths: Sequence[float] = STRENGTHS,
    draws: int = 5,
    fit_steps: int = FIT_STEPS,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    gate: Callable[[], Gate] = silero_gate,
    progress: Progress = iter,
) -> Outcome:
    """Choose a steering by the SAEs of `steered` whose WER on `valid` rises by at most `points`, and measure it and all
    that it is compared with on `test`.

    `options` are added to those of the transcription. In the report `clips` holds what each method wrote of each test
    clip, `about` all trials on the validation clips and what was left out. Cost: up to ((sites + 1) x (1 + kinds) +
    counts) x strengths passes over `valid`, less those that costly edits end early, and two fits of `fit_steps` (none
    if that is 0).

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

    valid_score = Score.of(valid, hear(valid))
    plain = Trial(None, float(ratio(valid_score.errors_M, valid_score.lengths_M)), float(valid_score.alarms_N.mean()))
    trials: list[Trial] = []

    def best(candidates: Sequence[Sequence[Method]], before: Trial = plain) -> Trial:
        tried = [climb(steered, ladder, valid, plain, points, chosen_options) for ladder in progress(list(candidates))]
        found = [trial for ladder in tried for trial in ladder]
        trials.extend(found)
        return choose([before, *found], plain, points)

    middle = sorted(counts)[len(counts) // 2]
    found = best(ladders(separations, kinds, [middle], strengths))
    if isinstance(found.method, Steering):
        others, group = [count for count in counts if count != middle], list(found.method.vectors)
        found = best(ladders(separations, [found.method.kind], others, strengths, [group]), found)
    methods: dict[str, Method | None] = {
        "activation steering": best(ladders(separations, ["activation"], [], strengths)).method
    }
    left_out = {}
    if fit_steps and isinstance(model, Whisper):

        def fitted(kind: str, what: What) -> list[Sequence[Method]]:
            vectors = fit(steered, train, chosen_options, what, steps=fit_steps, seed=seed, progress=progress)
            used = {site: vector.cpu() for site, vector in vectors.items() if vector.any()}
            return [[Steering(kind, used, strength)] for strength in FIT_STRENGTHS] if used else []

        methods["ranked features"] = found.method
        found = best(fitted("gain", "features"), found)
        methods["activation steering, fitted"] = best(fitted("push", "activation")).method
    else:
        left_out["fitted steering"] = "no steps were asked for" if not fit_steps else f"{model.name} is no Whisper"
    steering = found.method
    assert steering is None or isinstance(steering, Steering)
    methods = {"SAE steering": steering, **methods}
    if isinstance(model, WhisperPackage):
        methods["thresholds, default"] = LIBRARY_DEFAULT
        methods["thresholds, chosen"] = best([[Thresholds(threshold) for threshold in NO_SPEECH_THRESHOLDS]]).method
    else:
        left_out["thresholds"] = f"{model.name} is not openai-whisper's"

    heard = {"baseline": hear(test)}
    sites = list(steering.vectors) if steering else list(steered.saes)
    alone = SteeredModel(model, {site: steered.saes[site] for site in sites}, check=False)
    with alone.edit(mode="reconstruct", padding=False):  # SAEs are trained without padding
        heard["SAE reconstruction"] = hear(test)
    heard |= {name: hear(test, method) if method else heard["baseline"] for name, method in methods.items()}
    try:
        heard["Silero VAD gate"] = gated(gate(), test, heard["baseline"])
    except MissingExtraError as error:
        left_out["Silero VAD gate"] = str(error)
    choices = {
        "baseline": "-",
        "SAE reconstruction": f"no edit, at {', '.join(sites)}",
        **{name: str(method or "nothing better within the limit") for name, method in methods.items()},
        "random features": f"as SAE steering, mean of {draws} draws",
        "Silero VAD gate": "its own settings",
    }
    scores = {name: Score.of(test, one) for name, one in heard.items()}
    if steering and draws:
        rng = np.random.default_rng(seed)
        drawn = [random_like(steering, steered, separations, rng) for _ in range(draws)]
        scores["random features"] = Score.mean([Score.of(test, hear(test, one)) for one in drawn])
    else:
        left_out["random features"] = "no draws were asked for" if steering else "no SAE steering was chosen"

    about = {
        "model": model.name,
        "sites": list(steered.saes),
        "options": chosen_options,
        "clips": {clips.split: [len(clips.silent), len(clips.speech)] for clips in (train, valid, test)},
        "WER may rise by (points)": points,
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


def gated(gate: Gate, clips: Clips, heard: Sequence[Heard]) -> list[Heard]:
    """What is left where the gate lets only sounds with speech through to the recogniser."""
    kept = []
    for sound, one in zip(clips.all, heard, strict=True):
        audio_N = as_clip(sound.source, VAD_RATE).resampled(VAD_RATE).mixed(1).waveform[0]
        kept.append(one if gate(audio_N) else replace(one, text="", words=(), no_speech_prob=None))
    return kept


def able(plain: Score) -> np.ndarray:
    """Which clips with speech [M] the recogniser can write: at least half of the words; all if there are none."""
    able_M = 2 * plain.errors_M <= plain.lengths_M
    return able_M if able_M.any() else ~able_M


def row(name: str, choice: str, score: Score, plain: Score, able_M: np.ndarray) -> Row:
    """A line of the table. `fewer` is None where the baseline has no false alarm, WER changes are in points."""
    is_plain, ones_N = score is plain, np.ones_like(score.alarms_N)

    def words(name: str, clips_M: np.ndarray) -> Row:
        now, before = score.only(clips_M), plain.only(clips_M)
        counts = now.errors_M, before.errors_M, now.lengths_M
        change = None if is_plain else over_clips(rise_in_points, *counts, kind=Interval)
        return {
            f"{name} errors": f"{now.errors_M.sum():.3g} of {now.lengths_M.sum():.0f}",
            name: over_clips(ratio, now.errors_M, now.lengths_M, kind=Share),
            f"{name} change": change,
        }

    return {
        "method": name,
        "choice": choice,
        "alarms": f"{score.alarms_N.sum():.3g} of {len(ones_N)}",
        "false alarms": over_clips(ratio, score.alarms_N, ones_N, kind=Share),
        "fewer": None
        if is_plain or not plain.alarms_N.any()
        else over_clips(drop, score.alarms_N, plain.alarms_N, kind=Share),
        "words/min": over_clips(ratio, score.words_N, score.minutes_N, kind=Interval),
        "no_speech_prob < 0.5": None if score.taken_N is None else over_clips(ratio, score.taken_N, ones_N, kind=Share),
        **words("WER", np.ones_like(able_M)),
        **words("WER, able", able_M),
    }


def trial_row(trial: Trial) -> Row:
    """JSON knows no infinity."""
    return {
        "method": str(trial.method),
        "WER": trial.wer,
        "false alarms": None if math.isinf(trial.alarms) else trial.alarms,
    }


def written(clips: Clips, heard: Mapping[str, Sequence[Heard]]) -> list[Row]:
    """What each method wrote of each clip."""
    return [
        {
            "clip": sound.name,
            "said": sound.labels.get("text", "") if index >= len(clips.silent) else "",
            **{name: listened[index].text for name, listened in heard.items()},
        }
        for index, sound in enumerate(clips.all)
    ]
