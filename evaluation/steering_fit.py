"""Steering that is fitted: which factor each feature gets, found by the gradient of what the recogniser shall write.

A Whisper is asked about training clips. Of one without speech it shall say that there is none: `<|nospeech|>` after the
token that starts a transcript, the end where the first word would stand. Of one with speech it shall go on to write
what it wrote before. So the loss is, in nats,

    without speech: [margin - log odds of no speech]+ / 2 + [margin - (end - log sum exp of all words)]+
    with speech:    WEIGHT x cross entropy of its own words + [margin + log odds of no speech]+ / 2

over the factors 1 + v of all features, v >= -1, with the model and the SAEs as they are. A penalty on |v| leaves most
factors at 1; in the last steps it is gone and only the features that are left move; then factors are rounded to
`GRID`, so that a recipe can be read. The same is done with a vector at each site in place of the features, which is
what activation steering can do at its best: difference of means is one such vector.

In a mask of features that is learned with a penalty this follows sparse feature circuits and differentiable masking
(De Cao et al. 2020, arXiv 2004.14992), but features may also be made stronger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from evaluation.ablation import Progress
from evaluation.transcripts import Clips, FalseAlarmError, listen
from hooks import attach
from hooks.errors import require
from hooks.families.whisper import Whisper
from steer.sae import SAE
from steer.steered import SteeredModel

What = Literal["features", "activation"]
BATCH, RATE = 4, {"features": 0.05, "activation": 0.02}
"""Clips of each kind a step, and Adam's learning rate."""
PENALTY, FREE = 0.01, 0.3
"""By how much |v| shrinks each step, and the share of the steps, at the end, in which it does not."""
MARGIN, WEIGHT = 3.0, 5.0
HIGHEST, GRID = 5.0, 0.25
"""Of a feature's factor: more is not tried, and what it is rounded to."""


class Exercises:
    """What a Whisper shall write of training clips: the loss on one, with gradients.

    Raises:
        FalseAlarmError: a model whose vocabulary is not Whisper's.
    """

    def __init__(self, steered: SteeredModel, clips: Clips, options: Mapping[str, Any]) -> None:
        model = steered.model
        assert isinstance(model, Whisper)
        self.model, self.clips, self.options = model, clips, options
        multilingual = model.vocabulary >= 51_865
        languages = model.vocabulary - 51_765 - multilingual
        if languages < 1:
            raise FalseAlarmError(f"{model.name}: {model.vocabulary} tokens are not Whisper's vocabulary")
        self.tokenizer = require("whisper.tokenizer", "whisper").get_tokenizer(
            multilingual, num_languages=languages, language=options.get("language"), task="transcribe"
        )
        self.texts: dict[int, str] = {}

    def window(self, source: Any) -> Tensor:
        """The start of a sound [1, N], as long as a window at most."""
        return self.model.prepare(source)[:, 0, : self.model.window]

    def text(self, index: int) -> str:
        """What the model writes of a clip with speech when nothing is edited."""
        if index not in self.texts:
            (heard,) = listen(self.model, [self.clips.speech[index]], self.options)
            self.texts[index] = heard.text
        return self.texts[index]

    def prompt(self, timed: bool) -> list[int]:
        """With a time stamp first, as `whisper.transcribe` asks, or without any, as transformers does."""
        first = self.tokenizer.timestamp_begin if timed else self.tokenizer.no_timestamps
        return [*self.tokenizer.sot_sequence, first]

    def logits(self, source: Any, tokens: list[int]) -> Tensor:
        """[L, V]. In bfloat16: fast where a processor has it, and a gradient needs no more."""
        with torch.autocast(self.model.device.type, torch.bfloat16):
            logits_BLV = self.model.logits(self.window(source), torch.tensor([tokens], device=self.model.device))
        return logits_BLV[0].float()

    def odds(self, logits_V: Tensor) -> Tensor:
        """Log odds of `<|nospeech|>`."""
        index = self.tokenizer.no_speech
        rest_V = torch.cat([logits_V[:index], logits_V[index + 1 :]])
        return logits_V[index] - rest_V.logsumexp(0)

    def silent(self, index: int, timed: bool) -> Tensor:
        logits_LV = self.logits(self.clips.silent[index].source, self.prompt(timed))
        end = self.tokenizer.eot
        over_words = logits_LV[-1, end] - logits_LV[-1, :end].logsumexp(0)
        return (MARGIN - self.odds(logits_LV[0])).relu() / 2 + (MARGIN - over_words).relu()

    def speech(self, index: int, timed: bool) -> Tensor:
        prompt = self.prompt(timed)
        words = self.tokenizer.encode(" " + self.text(index)) if self.text(index) else []
        # whether it ends there is for time stamps to say, where there are any
        answers = words if timed else [*words, self.tokenizer.eot]
        logits_LV = self.logits(self.clips.speech[index].source, [*prompt, *words])
        told_LV = logits_LV[len(prompt) - 1 :][: len(answers), : self.tokenizer.eot + 1]
        spoken = nn.functional.cross_entropy(told_LV, torch.tensor(answers, device=told_LV.device), reduction="sum")
        return WEIGHT * spoken + (MARGIN + self.odds(logits_LV[0])).relu() / 2


def fit(
    steered: SteeredModel,
    clips: Clips,
    options: Mapping[str, Any],
    what: What = "features",
    *,
    steps: int = 200,
    seed: int = 0,
    progress: Progress = iter,
) -> dict[str, Tensor]:
    """v of all features (factors are 1 + v) or a vector [D], for every site that has an SAE.

    A step is 2 x `BATCH` passes of one window with gradients.

    Raises:
        FalseAlarmError: a model whose vocabulary is not Whisper's.
        AudioFileError: a clip that cannot be read.
    """
    exercises = Exercises(steered, clips, options)
    rng = np.random.default_rng(seed)
    vectors = zeros(steered, clips, what)
    optimizer = torch.optim.Adam(vectors.values(), lr=RATE[what])
    kinds = (exercises.silent, len(clips.silent)), (exercises.speech, len(clips.speech))
    with frozen(steered.model.module, *steered.saes.values()), torch.enable_grad():
        for step in progress(list(range(steps))):
            free = step >= (1 - FREE) * steps
            support = {site: v != 0 for site, v in vectors.items()}
            optimizer.zero_grad()
            for loss, count in kinds:
                for index in rng.integers(count, size=BATCH):
                    timed = bool(rng.integers(2))
                    if loss == exercises.speech:
                        exercises.text(int(index))  # before anything is edited
                    with pushed(steered, vectors, what):
                        (loss(int(index), timed) / BATCH).backward()
            optimizer.step()
            if what == "features":
                with torch.no_grad():
                    for site, v in vectors.items():
                        shrunk = v * support[site] if free else v.sign() * (v.abs() - PENALTY).clamp(min=0)
                        v.copy_(shrunk.clamp(-1, HIGHEST - 1))
    if what == "features":
        return {site: (v.detach() / GRID).round() * GRID for site, v in vectors.items()}
    return {site: v.detach() for site, v in vectors.items()}


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
        if isinstance(sae, SAE) and not sae.rms_norm:  # a linear decoder
            return x_BTD + (f_BTF * v_F) @ sae.W_dec
        return x_BTD + sae.decode(f_BTF * (1 + v_F)) - sae.decode(f_BTF)

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
