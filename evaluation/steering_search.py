"""Which edit takes away most false alarms at a bounded cost: what separates speech from the rest, candidates, the rule.

Learned from training clips (`evaluation.separation`): the AUROC of each feature between sounds without and with speech,
by a clip's mean over the frames that hold sound, and the differences of the two classes' means. Candidates are

- `shift`: the k features that separate best, either way, moved by strength x their difference of means. That is
  AudioSAE's steering (arXiv 2602.05027): a sum of decoder directions, the same in every frame;
- `scale`: the k features that tell best that there is no speech, times 1 + strength. They hardly fire in speech, so
  this acts where there is something to act on;
- `activation`: strength x the difference of means of the activation itself, which needs no SAE;

each at every site by itself and at all sites together. Of `shift` and `scale` the site and the kind are found with the
middle one of the numbers of features, and the number afterwards. And at all sites together what was fitted by gradient
(`evaluation.steering_fit`):

- `gain`: each feature v times 1 + strength x v;
- `push`: strength x a vector at each site, which needs no SAE either.

The rule (`choose`): of all that make at most a given number of word errors more on the validation clips, the one whose
rate of false alarms there is lowest; of equals the one with the lower WER, then with fewer features, then the
weaker. Strengths are tried upwards, and stop at the first that costs too much: stronger ones are taken to cost more.
Those of what was fitted are all tried: it was fitted at strength 1, and weaker can be worse.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from evaluation.separation import Separation
from evaluation.transcripts import Clips, alarm_rate, errors_in, listen
from hooks import attach
from hooks.model import Transcriber
from steer.edits import Edit, Scale, Shift
from steer.steered import SteeredModel

PLAIN = {"activation": "difference of means", "push": "fitted vector"}
"""Steering without an SAE, and what it adds to the activation."""


class Choice(Protocol):
    """Something that can be done about false alarms, which costs more the stronger and the larger it is."""

    @property
    def strength(self) -> float: ...

    @property
    def features(self) -> int: ...


class Method(Choice, Protocol):
    """One by a context to transcribe in, and options of the transcription."""

    @property
    def options(self) -> Mapping[str, Any]: ...

    def applied(self, steered: SteeredModel) -> Any: ...


@dataclass(frozen=True)
class Steering:
    """An edit at one site or several; `vectors` are [D] for `activation` and `push`, else [d_sae].

    Those of `scale` (0 or 1) and of `gain` say by which part of the strength a factor is not 1.
    """

    kind: str
    vectors: Mapping[str, Tensor]
    strength: float
    options: ClassVar[Mapping[str, Any]] = {}

    @property
    def features(self) -> int:
        """How many features are edited, all sites together."""
        return 0 if self.kind in PLAIN else sum(int(v.count_nonzero()) for v in self.vectors.values())

    def factors(self) -> dict[str, dict[float, list[int]]]:
        """Of `scale` and `gain`: features by their factor (4 digits), for each site."""
        return {
            site: {
                round(1 + self.strength * value, 4): (v == value).nonzero()[:, 0].tolist()
                for value in v[v != 0].unique().tolist()
            }
            for site, v in self.vectors.items()
        }

    def edits(self) -> dict[str, list[Edit]]:
        if self.kind == "shift":
            return {site: [Shift(vector, self.strength)] for site, vector in self.vectors.items()}
        return {
            site: [Scale(features, factor) for factor, features in each.items()]
            for site, each in self.factors().items()
        }

    @contextmanager
    def applied(self, steered: SteeredModel) -> Iterator[None]:
        with ExitStack() as stack:
            if self.kind in PLAIN:
                for site, vector_D in self.vectors.items():
                    push_D = (self.strength * vector_D).to(steered.model.device)
                    stack.enter_context(attach(steered.model.module, steered.sites[site], partial(torch.add, push_D)))
            else:
                stack.enter_context(steered.edit(self.edits()))
            yield

    def __str__(self) -> str:
        count = f"{self.features} feature{'s' * (self.features != 1)}"
        what = PLAIN.get(self.kind, f"{self.kind}, {count}")
        return f"{what} at {', '.join(self.vectors)}, strength {self.strength:g}"


@dataclass(frozen=True)
class Thresholds:
    """openai-whisper's own guard: a window is skipped if its `no_speech_prob` is above a threshold, unless the mean
    log-probability of its words is above the other."""

    no_speech: float
    logprob: float | None = None
    features: ClassVar[int] = 0

    @property
    def strength(self) -> float:
        return 1 - self.no_speech

    @property
    def options(self) -> Mapping[str, Any]:
        return {"no_speech_threshold": self.no_speech, "logprob_threshold": self.logprob}

    @contextmanager
    def applied(self, steered: SteeredModel) -> Iterator[None]:
        yield

    def __str__(self) -> str:
        logprob = "" if self.logprob is None else f", logprob_threshold {self.logprob:g}"
        return f"no_speech_threshold {self.no_speech:g}{logprob}"


def ladders(
    separations: Mapping[str, Separation],
    kinds: Sequence[str],
    counts: Sequence[int],
    strengths: Sequence[float],
    groups: Sequence[Sequence[str]] | None = None,
) -> list[list[Steering]]:
    """Candidates, from weak to strong, of each kind, number of features a site, and group of sites; by default each
    site by itself, and all together."""
    each = [[site] for site in separations]
    made: list[list[Steering]] = []
    for sites in groups or [*each, *([list(separations)] if len(separations) > 1 else [])]:
        for kind in kinds:
            seen: set[int] = set()
            for count in [0] if kind == "activation" else counts:
                vectors = {
                    site: one.direction_D if kind == "activation" else getattr(one, kind)(count)
                    for site, one in separations.items()
                    if site in sites
                }
                steering = Steering(kind, {site: v for site, v in vectors.items() if v.any()}, 0.0)
                # there may be fewer features than that
                if steering.vectors and (steering.features not in seen or kind == "activation"):
                    seen.add(steering.features)
                    made.append([replace(steering, strength=strength) for strength in sorted(strengths)])
    return made


@dataclass(frozen=True)
class Trial:
    """What a method did to the validation clips; None is to do nothing. Of one that costs too much word errors are only
    counted until that is clear, and false alarms not at all: they stay infinite."""

    method: Choice | None
    wer: float
    alarms: float = math.inf

    def order(self) -> tuple[float, float, int, float]:
        features, strength = (self.method.features, self.method.strength) if self.method else (0, 0.0)
        return (self.alarms, self.wer, features, strength)


@dataclass(frozen=True)
class Limit:
    """So many word errors more are allowed among the `said` words of the validation clips."""

    words: int
    said: int

    @classmethod
    def of(cls, words: int | None, said: int) -> Limit:
        """That of `words`, or half a point of all words that are said, but at least one."""
        return cls(max(1, said // 200) if words is None else words, said)

    def allows(self, wer: float, plain: Trial) -> bool:
        # both are whole errors over the same number of words: rounding shall not decide
        return wer <= plain.wer + (self.words + 1e-6) / self.said

    def __str__(self) -> str:
        return f"{self.words} of {self.said} words ({100 * self.words / self.said:.2g} points)"


def choose(trials: Sequence[Trial], plain: Trial, limit: Limit) -> Trial:
    """The rule at the module's head; `plain` where nothing does better."""
    return min([plain, *(trial for trial in trials if limit.allows(trial.wer, plain))], key=Trial.order)


def as_many(low: float, high: float, count: int) -> list[float]:
    """So many strengths or thresholds in equal ratios."""
    return [float(f"{value:.3g}") for value in np.geomspace(low, high, max(count, 2))]


def climb(
    steered: SteeredModel,
    ladder: Sequence[Method],
    valid: Clips,
    plain: Trial,
    limit: Limit,
    options: Mapping[str, Any],
) -> list[Trial]:
    """Try methods from weak to strong until one costs too much; the clips with speech come first and decide that."""
    model = steered.model
    assert isinstance(model, Transcriber)
    trials: list[Trial] = []
    for method in ladder:
        chosen = {**options, **method.options}
        with method.applied(steered):
            wer = 0.0
            for sound in valid.speech:
                errors_1, _ = errors_in([sound], listen(model, [sound], chosen))
                wer += float(errors_1[0]) / limit.said
                if not limit.allows(wer, plain):
                    return [*trials, Trial(method, wer)]
            trials.append(Trial(method, wer, alarm_rate(listen(model, valid.silent, chosen))))
    return trials
