"""`Config`: the options that all evaluators share. An evaluator's own options are the fields of a subclass.

A field is an option of the command `steer evaluate NAME`, with its description as help, and part of what a result
depends on; a field with `exclude=True` is neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from evaluation.dataset import Dataset
from hooks import AudioModel
from hooks.errors import AudioSteerError, shortened
from steer.recipe import DEFAULT_MODEL, Recipe, default_saes, first_problem
from steer.sae_folders import saes_of
from steer.steered import SteeredModel

RECOGNISER = "starter:asr"
"""The model of evaluators that are about speech, where none is named."""
WITH_WHAT = "With what"
"""Panel of the help with what says which model and SAEs."""

Subject = SteeredModel | AudioModel


class EvaluationError(AudioSteerError):
    """An option that makes no sense, or results that cannot be written."""


def split_names(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def split_assignments(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    parts = [part.partition("=") for part in split_names(value)]
    if not all(name and theirs for name, _, theirs in parts):
        raise ValueError(f"{value!r} is not of the form NAME=NAME,NAME=NAME")
    return {name.strip(): theirs.strip() for name, _, theirs in parts}


Names = Annotated[tuple[str, ...], BeforeValidator(split_names)]
"""Names with commas between them."""
Assignments = Annotated[dict[str, str], BeforeValidator(split_assignments)]


def means(default: Any, description: str, repeatable: bool = False, **more: Any) -> Any:
    """A field that says with what something is measured."""
    extra: Any = {"panel": WITH_WHAT, "repeatable": repeatable}
    return Field(default, description=description, json_schema_extra=extra, **more)


class Config(BaseModel):
    """What all evaluators are told.

    `subject` is an open model, with its SAEs where they matter, in place of `model`, `sae` and `site`; `out` is a
    folder for what an evaluator writes beside its report.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, populate_by_name=True)

    audio: Path = Field(description="Folder with a manifest.csv, folder of such folders (subsets), or CSV file.")
    columns: Assignments = Field(
        default={}, description="Columns that the manifests name in another way: text=sentence."
    )
    splits: Assignments = Field(default={}, description="Splits that the manifests name in another way: valid=dev.")
    clips: int = Field(default=40, ge=1, description="Maximum number of clips of a subset and split.")
    seed: int = Field(default=0, ge=0, description="Of everything that is drawn at random.")
    model: str | None = means(None, "Name or folder; see `steer models`.")
    sae: Names = means(
        (),
        "Name or folder of an SAE, of a model's own, or of all that steer train wrote. Repeatable, once for each site. "
        "Default: the model's own.",
        repeatable=True,
    )
    site: str | None = means(None, "Where the SAE goes, if it does not say; or which of the model's own.")
    device: str = means("cpu", "Where the model runs: cpu, cuda or cuda:1.")
    out: Path | None = Field(default=None, exclude=True)
    subject: Any = Field(default=None, exclude=True, repr=False)

    default_model: ClassVar[str] = DEFAULT_MODEL
    divide: ClassVar[bool] = False
    """Whether something is trained, and clips without splits have to be divided."""

    @classmethod
    def build(cls, values: Mapping[str, Any]) -> Self:
        """Raises EvaluationError with the option that makes no sense."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            name = "-".join(str(part) for part in error.errors()[0]["loc"][:1]).replace("_", "-")
            text = shortened(first_problem(error, cls.model_fields).partition(": ")[2])
            raise EvaluationError(f"--{name} {values.get(name.replace('-', '_'), '')}: {text}") from None

    @property
    def dataset(self) -> Dataset:
        return Dataset(self.audio, self.columns, self.splits, self.divide)

    def recipe(self) -> Recipe:
        """The model and the SAEs that are named; else those that the model brings.

        Raises:
            EvaluationError: an SAE does not say where it goes, or where another one is.
            RecipeError: there is no SAE.
            SAEError: an SAE cannot be read.
        """
        model = self.model
        saes: dict[str, str] = {}
        for source in self.sae:
            for sae in saes_of(source, self.site):
                if not sae.site:
                    raise EvaluationError(f"--sae {source}: it does not say where it goes; pass --site")
                if sae.site in saes:
                    raise EvaluationError(f"--sae {source}: {saes[sae.site]} is at site {sae.site!r} already")
                saes[sae.site], model = sae.source, model or sae.model
        model = model or self.default_model
        if self.site and not self.sae:
            own = default_saes(model)
            if self.site not in own:
                have = f"{', '.join(own)} have theirs, " if own else ""
                raise EvaluationError(f"--site {self.site}: {have}pass --sae for the SAE that goes there")
            saes = {self.site: own[self.site]}
        return Recipe.build({"model": model, "saes": saes}, "options", Path.cwd())

    def open(self) -> Subject:
        """`subject`, or what the options name, opened.

        Raises:
            AudioSteerError: a model or an SAE cannot be opened, or they do not fit.
        """
        return self.subject if self.subject is not None else self.recipe().open(self.device)

    def steered(self) -> SteeredModel:
        """The same, with SAEs."""
        subject = self.open()
        if not isinstance(subject, SteeredModel):
            raise EvaluationError(f"{subject.name}: this evaluates SAEs; pass --sae")
        return subject
