"""Options of several evaluators."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from torch import nn

from evaluation.config import Config, Names, Subject, means
from evaluation.file_edits import REQUESTS
from evaluation.frame import digest_of_code, digest_of_module, digest_of_recordings
from evaluation.passes import Kept
from evaluation.pooled import default_sites
from evaluation.pooled_saes import CROPS, SPARSITIES
from hooks import AudioModel, Codec, open_model
from hooks.model import Encoder, Transcriber
from steer.errors import EditError
from steer.steered import SteeredModel
from steer.vectors import ControlVector


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

    def chosen_subsets(self, own: Sequence[str]) -> Sequence[str]:
        """Those that are named; else those of AudioSteer's `own` that the folder has, or all of a folder without them.

        Raises:
            AudioFileError: it has none.
        """
        there = self.dataset
        return self.subsets or [subset for subset in own if subset in there.subsets] or there.check().subsets


class RequestsConfig(SubsetsConfig):
    """Of evaluators that request changes along control vectors."""

    requests: CountOrAll = Field(
        default=2, description="How many requests for each clip and attribute are drawn, or all."
    )
    vectors: Any = Field(default=None, exclude=True, repr=False)
    """Control vectors by name, in place of those beside the SAE."""

    def control_vectors(self, attributes: Sequence[str]) -> tuple[Mapping[str, ControlVector], list[str]]:
        """The vectors, and for which of the attributes there are some. Raises EditError where there are none."""
        vectors = self.recipe().control_vectors() if self.vectors is None else self.vectors
        able = [name for name in attributes if name in vectors]
        if not able:
            raise EditError(f"no control vectors for {', '.join(attributes)}; there are {', '.join(vectors) or 'none'}")
        return vectors, able

    def about(self, steered: SteeredModel, attributes: Sequence[str]) -> dict[str, Any]:
        """What reports say of the model and of what was requested."""
        named = self.recipe().saes if self.vectors is None else {site: repr(sae) for site, sae in steered.saes.items()}
        return {
            "model": steered.model.name,
            "saes": named,
            "split": self.split,
            "requests": {name: REQUESTS[name] for name in attributes},
            "requests a clip and attribute": "all" if self.requests is None else self.requests,
        }


class ModelConfig(Config):
    """Of evaluators that train SAEs of their own: they take a model alone, and sites of it."""

    sae: Names = Field(default=(), exclude=True)
    site: str | None = means(None, "Sites, with commas. Default: all that pass the sound itself.")

    default_model = "starter:ssl"

    def open(self) -> AudioModel:
        """The model, without SAEs. Raises AudioSteerError where it cannot be opened."""
        if self.subject is None:
            return open_model(self.model or self.default_model, device=self.device)
        return self.subject.model if isinstance(self.subject, SteeredModel) else self.subject

    def sites_of(self, model: AudioModel) -> list[str]:
        """Names of the sites that are asked for. Raises SiteError for one that is not there."""
        chosen = [name.strip() for name in (self.site or "").split(",") if name.strip()]
        return [model.site(name).name for name in chosen] or default_sites(model)


def percentages(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return [float(part.strip().removesuffix("%")) for part in value.split(",") if part.strip()]


Percentages = Annotated[
    tuple[Annotated[float, Field(gt=0, lt=100)], ...], BeforeValidator(percentages), Field(min_length=1)
]
"""Numbers between 0 and 100 with commas between them."""


class SweepConfig(ModelConfig):
    """Of evaluators that train SAEs of several sparsities on utterance vectors."""

    sparsity: Percentages = Field(default=SPARSITIES, description="Per cent of features that are 0, with commas.")
    dictionary: int | None = Field(default=None, ge=2, description="Features of an SAE. Default: 8/3 of the channels.")
    crops: int = Field(default=CROPS, ge=0, description="Random stretches of each clip that SAEs are trained on too.")
    sae_subsets: Names = Field(
        default=(), description="Subsets whose training clips SAEs are trained on, with commas. Default: those above."
    )
    seeds: int = Field(default=2, ge=1, description="SAEs of each sparsity, with other first weights.")
    padding: bool = Field(default=False, description="Leave the patches of padding in the means of AST.")


FEATURES = "features.safetensors"


def features_kept(config: Config, steered: SteeredModel) -> Kept:
    """The features of clips that an earlier call left in the folder for the results, of the same model, SAEs,
    recordings and code."""
    settings = {
        "weights": digest_of_module(steered.model.module),
        "sae": {site: digest_of_module(sae) for site, sae in steered.saes.items() if isinstance(sae, nn.Module)},
        "recordings": digest_of_recordings(config.dataset),
        "code": digest_of_code(__name__),
    }
    return Kept(config.out / FEATURES if config.out else None, json.dumps(settings, sort_keys=True))


def model_of(subject: Subject) -> Any:
    return subject.model if isinstance(subject, SteeredModel) else subject


def for_codecs(subject: Subject) -> str:
    model = model_of(subject)
    return "" if isinstance(model, Codec) else f"{model.name} is a {model.kind}, and this is for codecs"


def for_speech_models(subject: Subject) -> str:
    model = model_of(subject)
    fits = isinstance(model, Transcriber | Encoder)
    return "" if fits else f"{model.name} is a {model.kind}, and this is for speech models"
