"""What the page's Transcribe tab runs: a sound as the model hears it, through the SAEs alone, and edited."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from apps.flags import RECOGNISER
from apps.transcripts import edits_of, recogniser
from evaluation.transcripts import defaults
from hooks.attach import attach
from hooks.clip import as_clip
from hooks.model import Source
from hooks.timing import current_time
from hooks.transcript import Transcript
from steer.editing.editor import Report
from steer.recipe import Recipe
from steer.steered import SteeredModel

FALSE_ALARMS = "false-alarms"
NO_EDITS = "The recipe has no edits, so the edited transcript is the baseline."


def shipped(name: str = f"{RECOGNISER}/{FALSE_ALARMS}") -> Recipe:
    """A recipe that ships, by its name. Raises RecipeError if there is none."""
    return Recipe.load(name, RECOGNISER)


@dataclass(frozen=True)
class Heard:
    """What was written, with the means of what the library tells of each segment, weighted by their lengths.

    `no_speech_prob` is the model's own probability that nobody speaks, `avg_logprob` that of the written tokens
    (natural logarithm, a token); None where the library does not tell them.
    """

    transcript: Transcript
    no_speech_prob: float | None
    avg_logprob: float | None

    @classmethod
    def of(cls, transcript: Transcript) -> Heard:
        return cls(transcript, mean_of(transcript, "no_speech_prob"), mean_of(transcript, "avg_logprob"))


@dataclass(frozen=True)
class Transcribed:
    """The three transcripts of a sound of `seconds`; `note` is for people, empty where there is nothing to say.

    `reconstruction` is what the model writes with decode(encode(x)) in place of the activation x at each of `sites`.
    """

    baseline: Heard
    reconstruction: Heard
    edited: Heard
    sites: tuple[str, ...]
    seconds: float
    note: str = ""


def transcribe_three(steered: SteeredModel, recipe: Recipe, source: Source, report: Report) -> Transcribed:
    """Transcribe a sound as the model is, through its SAEs without an edit, and by the edits of a recipe.

    `steered` is what `recipe.open()` gives; edits are seen in this thread alone. The sites of the reconstruction are
    those of the edits, or all that the recipe has SAEs for. It is greedy and without the library's guards against
    silence, so that a sound has one transcript, and what is different comes from the edits.

    `report` is called with the step and the share that is done, 0 to 1, at each step and each window of the sound; what
    it raises stops the run and takes the edits away.

    Raises:
        ModelError: a model that writes no words.
        RecipeError: goals, which are for sounds.
        AudioFileError: a sound that cannot be read.
        EditError, SAEError: the recipe does not fit the model.
    """
    model, edits = recogniser(steered.model), edits_of(recipe)
    # as it is measured, but in whatever language the library finds
    options = {key: value for key, value in defaults(model).items() if key != "language"}
    with steered.edit(edits, padding=recipe.padding):
        pass  # edits that cannot be done are refused here, before any work
    clip = as_clip(source, model.sample_rate)
    sites = tuple(site for site in recipe.saes if edits.get(site) or not edits)
    first = next(iter((*sites, *edits)))  # a direction may be where there is no SAE
    steps: dict[str, AbstractContextManager[Any]] = {"baseline": nullcontext()}
    if sites:
        through = SteeredModel(model, {site: steered.saes[site] for site in sites}, check=False)
        # SAEs are trained without padding
        steps["reconstruction only"] = through.edit(mode="reconstruct", padding=False)
    if edits:
        steps["edited"] = steered.edit(edits, padding=recipe.padding)

    def hear(number: int, stage: str, as_edited: AbstractContextManager[Any]) -> Heard:
        def at_window(x_BTD: Tensor) -> None:
            done = min(1.0, (current_time() or 0.0) / clip.seconds)
            report(stage, (number + done) / len(steps))

        report(stage, number / len(steps))
        with as_edited, attach(model.module, model.site(first), at_window):
            return Heard.of(model.transcribe(clip, **options))

    heard = {stage: hear(number, stage, context) for number, (stage, context) in enumerate(steps.items())}
    report("done", 1.0)
    baseline = heard["baseline"]
    reconstruction, edited = heard.get("reconstruction only", baseline), heard.get("edited", baseline)
    return Transcribed(baseline, reconstruction, edited, sites, clip.seconds, "" if edits else NO_EDITS)


def mean_of(transcript: Transcript, key: str) -> float | None:
    told = [segment for segment in transcript.segments if key in segment]
    if not told:
        return None
    lengths = [segment["end"] - segment["start"] for segment in told]
    weights = lengths if sum(lengths) else [1.0] * len(told)
    return sum(weight * float(segment[key]) for weight, segment in zip(weights, told, strict=True)) / sum(weights)
