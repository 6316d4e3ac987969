"""Options of several evaluators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from evaluation.config import Config, Names, Subject
from evaluation.dataset import Dataset
from hooks import Codec
from hooks.model import Encoder, Transcriber
from steer.steered import SteeredModel


def count_or_all(value: Any) -> Any:
    if value is None or value == "all":
        return None
    if isinstance(value, str) and not (value.isdecimal() and int(value)):
        raise ValueError("give a number from 1 on, or all")
    return int(value)


CountOrAll = Annotated[int | None, BeforeValidator(count_or_all)]
"""A number from 1 on, or `all` (None)."""


class SplitConfig(Config):
    split: str = Field(default="test", description="Which clips: train, valid or test.")


class SubsetsConfig(SplitConfig):
    subsets: Names = Field(default=(), description="Which subsets, with commas. Default: those that are evaluated on.")


def own_or_all(dataset: Dataset, own: Sequence[str]) -> list[str]:
    """Those of AudioSteer's own subsets that the folder has; all that it has where these are none.

    Raises:
        AudioFileError: it has none.
    """
    return [subset for subset in own if subset in dataset.subsets] or dataset.check().subsets


def model_of(subject: Subject) -> Any:
    return subject.model if isinstance(subject, SteeredModel) else subject


def for_codecs(subject: Subject) -> str:
    model = model_of(subject)
    return "" if isinstance(model, Codec) else f"{model.name} is a {model.kind}, and this is for codecs"


def for_speech_models(subject: Subject) -> str:
    model = model_of(subject)
    fits = isinstance(model, Transcriber | Encoder)
    return "" if fits else f"{model.name} is a {model.kind}, and this is for speech models"
