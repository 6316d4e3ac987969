"""Steering that is fitted: which factor each feature gets, found by the gradient of what the recogniser shall write.

A Whisper is asked about training clips. Of one without speech it shall say that there is none: `<|nospeech|>` after the
token that starts a transcript, the end where the first word would stand. Of one with speech it shall go on to write
what it wrote before, as sure of each word as it was, or `SURE`. So the loss is, in nats,

    without speech: [MARGIN - log odds of no speech]+ / 2 + [MARGIN - (end - log sum exp of all words)]+
    with speech:    [MARGIN + log odds of no speech]+ / 2 + WEIGHT x sum over its own words of
                    [min(SURE, log odds without the edit) - log odds]+

over the factors 1 + v of all features, v >= -1, with the model and the SAEs as they are. Clips of a few speakers tell
little of all others: so each comes at another speed and level every time (`varied`), and words keep their margin. A
penalty on |v| leaves many factors at 1; in the last steps it is gone and only the features that are left move. The fit
is the mean over these steps, in which a few clips a step drive v to and fro, its factors rounded to `GRID`, so that a
recipe can be read. The same is done with a vector at each site in place of the features, which is what activation
steering can do at its best: difference of means is one such vector.

In a mask of features that is learned with a penalty this follows sparse feature circuits and differentiable masking
(De Cao et al. 2020, arXiv 2004.14992), but features may also be made stronger.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from evaluation.dataset import LabelledSound
from evaluation.report import Progress
from evaluation.transcripts import Clips, FalseAlarmError
from hooks import Clip, attach
from hooks.clip import as_clip
from hooks.errors import require
from hooks.families.whisper import Whisper
from hooks.families.whisper.base import SAMPLE_RATE
from steer.decoding import moved
from steer.sae import SAE
from steer.steered import SteeredModel

What = Literal["features", "activation"]
BATCH, RATE = 4, {"features": 0.05, "activation": 0.02}
"""Clips of each kind a step, and Adam's learning rate."""
PENALTY, FREE = 0.01, 0.4
"""By how much |v| shrinks each step, and the share of the steps, at the end, in which it does not and of which the mean
is taken."""
MARGIN, SURE, WEIGHT = 3.0, 6.0, 2.0
HIGHEST, GRID = 5.0, 0.05
"""Of a feature's factor: more is not tried, and what it is rounded to."""
STAMP_S = 0.02
"""Of a step of time stamps."""
SPEED, LEVEL_DB = 1.25, 6.0
"""Clips come up to so many times as fast or slow, four semitones of pitch with it, and so much louder or softer."""


def varied(source: Any, sample_rate: int, rng: np.random.Generator) -> Clip:
    """The sound at a random speed (and pitch with it) and level; bare samples are at `sample_rate` Hz."""
    clip = as_clip(source, sample_rate)
    gain = 10 ** (rng.uniform(-LEVEL_DB, LEVEL_DB) / 20)
    return Clip(clip.waveform * gain, round(clip.sample_rate * SPEED ** rng.uniform(-1, 1)))


class Exercises:
    """What a Whisper shall write of a sound: the loss on one, with gradients.

    Raises:
        FalseAlarmError: a model whose vocabulary is not Whisper's.
    """

    def __init__(self, steered: SteeredModel, options: Mapping[str, Any]) -> None:
        model = steered.model
        assert isinstance(model, Whisper)
        self.model, self.options = model, options
        multilingual = model.vocabulary >= 51_865
        languages = model.vocabulary - 51_765 - multilingual
        if languages < 1:
            raise FalseAlarmError(f"{model.name}: {model.vocabulary} tokens are not Whisper's vocabulary")
        self.tokenizer = require("whisper.tokenizer", "whisper").get_tokenizer(
            multilingual, num_languages=languages, language=options.get("language"), task="transcribe"
        )

    def window(self, source: Any) -> Tensor:
        """The start of a sound [1, N], as long as a window at most."""
        return self.model.prepare(source)[:, 0, : self.model.window]

    def written(self, samples_N: Tensor) -> list[int]:
        """The tokens of a transcript of samples of a window, with time stamps."""
        tokens: list[int] = []
        for segment in self.model.transcribe(Clip(samples_N[None], SAMPLE_RATE), **self.options).segments:
            first, last = (self.tokenizer.timestamp_begin + round(segment[end] / STAMP_S) for end in ("start", "end"))
            tokens += [first, *self.tokenizer.encode(segment["text"]), last]
        return tokens

    def prompt(self, timed: bool) -> list[int]:
        """With a time stamp first, as `whisper.transcribe` asks, or without any, as transformers does."""
        first = self.tokenizer.timestamp_begin if timed else self.tokenizer.no_timestamps
        return [*self.tokenizer.sot_sequence, first]

    def logits(self, audio_BN: Tensor, tokens: list[int]) -> Tensor:
        """[L, V]. In bfloat16 where the processor has it, where it is fast: a gradient needs no more."""
        kind = self.model.device.type
        with torch.autocast(kind, torch.bfloat16, enabled=kind != "cpu" or has_bfloat16()):
            logits_BLV = self.model.logits(audio_BN, torch.tensor([tokens], device=self.model.device))
        return logits_BLV[0].float()

    def no_speech(self, logits_LV: Tensor) -> Tensor:
        """Log odds of `<|nospeech|>`."""
        return log_odds(logits_LV[:1], [self.tokenizer.no_speech])[0]

    def silent(self, audio_BN: Tensor, timed: bool) -> Callable[[], Tensor]:
        """The loss on a window without speech, to be called while something is edited."""
        end = self.tokenizer.eot

        def loss() -> Tensor:
            logits_LV = self.logits(audio_BN, self.prompt(timed))
            over_words = logits_LV[-1, end] - logits_LV[-1, :end].logsumexp(0)
            return (MARGIN - self.no_speech(logits_LV)).relu() / 2 + (MARGIN - over_words).relu()

        return loss

    @torch.no_grad()
    def speech(self, audio_BN: Tensor, timed: bool) -> Callable[[], Tensor]:
        """The loss on a window with speech, to be called while something is edited; what the model writes of it as it
        is now is what it shall write then."""
        text = str(self.model.transcribe(audio_BN[0], **self.options))
        words = self.tokenizer.encode(" " + text) if text else []
        # whether it ends there is for time stamps to say, where there are any
        answers = words if timed else [*words, self.tokenizer.eot]
        tokens = [*self.prompt(timed), *words]
        first = len(tokens) - len(words) - 1

        def odds(logits_LV: Tensor) -> Tensor:
            return log_odds(logits_LV[first:][: len(answers), : self.tokenizer.eot + 1], answers)

        wanted_L = odds(self.logits(audio_BN, tokens)).clamp(max=SURE)

        def loss() -> Tensor:
            logits_LV = self.logits(audio_BN, tokens)
            lost_L = (wanted_L - odds(logits_LV)).relu()
            return (MARGIN + self.no_speech(logits_LV)).relu() / 2 + WEIGHT * lost_L.sum()

        return loss


@cache
def has_bfloat16() -> bool:
    """Whether this CPU multiplies in bfloat16 itself; others take four times as long for it as for float32."""
    known = torch.cpu.get_capabilities()
    return bool(known.get("avx512_bf16") or known.get("amx_bf16") or known.get("bf16"))


def log_odds(logits_LV: Tensor, tokens: Sequence[int]) -> Tensor:
    """Of one token at each place [L] against all others."""
    tokens_L1 = torch.tensor(tokens, dtype=torch.long, device=logits_LV.device)[:, None]
    rest_LV = logits_LV.scatter(1, tokens_L1, -torch.inf)
    return logits_LV.gather(1, tokens_L1)[:, 0] - rest_LV.logsumexp(1)


def fit(
    steered: SteeredModel,
    clips: Clips,
    options: Mapping[str, Any],
    what: What = "features",
    *,
    steps: int,
    seed: int = 0,
    progress: Progress = iter,
) -> dict[str, Tensor]:
    """v of all features (factors are 1 + v) or a vector [D], for every site that has an SAE.

    A step is 2 x `BATCH` passes of one window with gradients, `BATCH` without, and `BATCH` transcriptions.

    Raises:
        FalseAlarmError: a model whose vocabulary is not Whisper's.
        AudioFileError: a clip that cannot be read.
    """
    model, exercises = steered.model, Exercises(steered, options)
    assert model.sample_rate is not None
    rng = np.random.default_rng(seed)
    vectors = zeros(steered, clips, what)
    optimizer = torch.optim.Adam(vectors.values(), lr=RATE[what])
    kinds = [
        (exercise, sounds, shares(sounds))
        for exercise, sounds in ((exercises.silent, clips.silent), (exercises.speech, clips.speech))
    ]
    means = {site: torch.zeros_like(v, requires_grad=False) for site, v in vectors.items()}
    last = range(int((1 - FREE) * steps), steps)
    with frozen(steered.model.module, *steered.saes.values()), torch.enable_grad():
        for step in progress(list(range(steps))):
            support = {site: v != 0 for site, v in vectors.items()}
            optimizer.zero_grad()
            for exercise, sounds, share_N in kinds:
                for index in rng.choice(len(sounds), size=BATCH, p=share_N):
                    source = varied(sounds[index].source, model.sample_rate, rng)
                    loss = exercise(exercises.window(source), timed=bool(rng.integers(2)))
                    with pushed(steered, vectors, what):
                        (loss() / BATCH).backward()
            optimizer.step()
            with torch.no_grad():
                for site, v in vectors.items():
                    if what == "features":
                        shrunk = v * support[site] if step in last else v.sign() * (v.abs() - PENALTY).clamp(min=0)
                        v.copy_(shrunk.clamp(-1, HIGHEST - 1))
                    if step in last:
                        means[site] += v / len(last)
    if what == "features":
        return {site: (v / GRID).round() * GRID for site, v in means.items()}
    return means


def shares(sounds: Sequence[LabelledSound]) -> np.ndarray:
    """How often each sound is drawn [N]: a subset as often as the root of its size says, lest one be all."""
    subsets = [sound.labels.get("subset") for sound in sounds]
    counts = Counter(subsets)
    share_N = np.array([counts[subset] ** -0.5 for subset in subsets])
    return share_N / share_N.sum()


@torch.no_grad()
def zeros(steered: SteeredModel, clips: Clips, what: What) -> dict[str, Tensor]:
    """For each site as many as there are features or channels."""
    features = steered.features(clips.silent[0].source)
    widths = {
        site: f_BTF.shape[-1] if what == "features" else steered.sites[site].width for site, f_BTF in features.items()
    }
    return {
        site: torch.zeros(int(width or 0), device=steered.model.device, requires_grad=True)
        for site, width in widths.items()
    }


@contextmanager
def pushed(steered: SteeredModel, vectors: Mapping[str, Tensor], what: What) -> Iterator[None]:
    """The model under these vectors; gradients reach them, through the model but not through what features are."""

    def change(x_BTD: Tensor, site: str) -> Tensor:
        if what == "activation":
            return x_BTD + vectors[site].to(x_BTD)
        sae, v_F = steered.saes[site], vectors[site]
        with torch.no_grad():
            f_BTF = sae.encode(x_BTD)
        if isinstance(sae, SAE) and not sae.rms_norm and sae.normalize is None:  # a linear decoder
            return x_BTD + (f_BTF * v_F) @ sae.W_dec
        return x_BTD + moved(sae, f_BTF * (1 + v_F), f_BTF, x_BTD)

    with ExitStack() as stack:
        for site in vectors:
            changed: Callable[[Tensor], Tensor] = partial(change, site=site)
            stack.enter_context(attach(steered.model.module, steered.sites[site], changed))
        yield


@contextmanager
def frozen(*parts: Any) -> Iterator[None]:
    """No gradients for weights, which would cost as much again."""
    weights = [weight for part in parts if isinstance(part, nn.Module) for weight in part.parameters()]
    wanted = [weight for weight in weights if weight.requires_grad]
    try:
        for weight in wanted:
            weight.requires_grad_(False)
        yield
    finally:
        for weight in wanted:
            weight.requires_grad_(True)
