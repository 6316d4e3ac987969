"""What a transcription takes of a recipe and of a model, and what is written down of it."""

from __future__ import annotations

from typing import Any

from hooks import ModelError
from hooks.model import AudioModel, Transcriber
from hooks.transcript import Transcript
from steer.edits import Edit
from steer.errors import RecipeError
from steer.recipe import Recipe

TOLD = ("start", "end", "text", "avg_logprob", "no_speech_prob", "words")
"""What JSON says of a segment, as far as the model's library tells it."""


def said(transcript: Transcript) -> dict[str, Any]:
    """Plain values of a transcript."""
    segments = [{key: segment[key] for key in TOLD if key in segment} for segment in transcript.segments]
    return {"text": str(transcript), "language": transcript.language, "segments": segments}


def edits_of(recipe: Recipe) -> dict[str, list[Edit]]:
    """{site: edits} for a transcription.

    Raises:
        RecipeError: goals, which are for sounds.
        EditError: edits that make no sense.
    """
    if recipe.voice.active:
        raise RecipeError("voice is for edited sounds; a transcription takes edits")
    if recipe.wanted:
        raise RecipeError(f"goals ({', '.join(recipe.wanted)}) are for edited sounds; a transcription takes edits")
    return recipe.edits_for()


def recogniser(model: AudioModel) -> Transcriber:
    """The same model; raises ModelError where it writes no words."""
    if not isinstance(model, Transcriber):
        raise ModelError(f"{model.name} is a {model.kind} and writes no words; pass a recogniser, such as starter:asr")
    return model
