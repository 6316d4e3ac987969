"""`Recipe`: the model, the SAEs and the edits as one small file, the same in Python, shell, batch and page.

    model: starter:codec
    saes: {latent: starter:codec/latent}
    goals: {loudness: +6dB, pitch: -2st, brightness: +20%}
    edits:
      - ablate: [3, 17]
        during: [[0.5, 1.5]]
      - clamp: {5: 2.0}
      - scale: {4: [[0, 1], [2, 1.5]]}     # a curve: factor 1 at 0 s, 1.5 from 2 s on
      - shift: vectors.safetensors#warm
        strength: 8
        when: gate.safetensors             # where a gate is open (`steer.gates`)
      - add_direction: directions.safetensors   # added to the activation itself, at the sites that it was fitted at
        strength: 2
        keep_norm: true
    voice: {pitch_range: 1.5, note: A3}     # of codecs with a pitch coordinate, see `steer.voice`
    residual: keep

YAML or JSON. A starter model brings its own SAEs where none are named; directions need none. Goals are what shall be
measured in the end, edits are done as they stand. Files and folders may be named relative to the recipe, in
`whisper:model.pt` too. `during` at the top limits goals and all edits that have none of their own, in seconds, and so
does `when` the edits, to where its gate is open; `{gate: gate.safetensors, threshold: 1, scope: clip}` says what takes
the place of the file's own threshold and scope. `residual` (keep or drop what the codec cannot carry) is by default
drop where there are goals, else keep. `padding: false` edits only the frames that hold sound, where a recogniser's
window is longer than that.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from hooks import AudioModel, open_model
from hooks.errors import one_line, shortened
from hooks.files import write_text
from steer import starter
from steer.edits import Edit, Shift
from steer.errors import EditError, RecipeError
from steer.formats import find_folder, load_sae
from steer.packs import SUFFIX, load_pack, named_parts
from steer.plain_yaml import UNREADABLE, read_yaml
from steer.recipe_edits import RECIPE_EDITS, EditSpec, Said
from steer.recipe_gates import When, moved_gate
from steer.recipe_problems import first_problem
from steer.recipe_values import Goals, Spans, value_of
from steer.steered import SteeredModel
from steer.vectors import ControlVector, load_vectors
from steer.voice import Voice

DEFAULT_MODEL = "starter:codec"
VECTORS = "vectors.safetensors"
"""Control vectors of an SAE lie beside it under this name; those called like a goal serve that goal."""


def default_saes(model: str) -> dict[str, str]:
    """{site: SAE} of those that ship for a model; they lie in folders named after their sites."""
    return {name.rpartition("/")[2]: name for name in starter.saes(model)}


class Recipe(BaseModel):
    """What to do, whole; see the module's head for the file. Paths in it are relative to `folder`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = DEFAULT_MODEL
    saes: dict[str, str] = Field(default_factory=dict, validate_default=True)
    goals: Goals = Field(default_factory=dict)
    edits: list[EditSpec] = Field(default_factory=list)
    voice: Voice = Field(default_factory=Voice)
    during: Spans = None
    when: When = None
    residual: Literal["keep", "drop", "ratio"] | None = None
    limit: bool = True
    padding: bool = True
    _folder: Path = PrivateAttr(default_factory=Path)

    @model_validator(mode="before")
    @classmethod
    def _default_saes(cls, values: Any) -> Any:
        if isinstance(values, dict) and not values.get("saes"):
            return {**values, "saes": default_saes(values.get("model", DEFAULT_MODEL))}
        return values

    @model_validator(mode="after")
    def _one_pitch(self) -> Recipe:
        if self.voice.note is not None and "pitch" in self.goals:
            raise ValueError("voice.note says where the pitch goes: leave out goals.pitch, which says how far")
        return self

    @model_validator(mode="after")
    def _gates_edits(self) -> Recipe:
        if self.when is not None and (self.wanted or self.voice.active):
            raise ValueError("when: a gate is for edits; goals and voice take during")
        return self

    @model_validator(mode="after")
    def _needs_saes(self) -> Recipe:
        directions = self.edits and not any(RECIPE_EDITS[spec.kind].needs_sae for spec in self.edits)
        if not self.saes and (not directions or self.wanted or self.voice.active):
            raise ValueError(f"saes: say which SAE belongs to which site of {self.model}")
        return self

    def __getstate__(self) -> dict[Any, Any]:
        """What is sent to a process in another folder finds its files all the same."""
        state = super().__getstate__()
        return {**state, "__pydantic_private__": {"_folder": self._folder.absolute()}}

    # --- files ---

    @classmethod
    def build(cls, values: Mapping[str, Any], name: str = "recipe", folder: Path | None = None) -> Recipe:
        """A recipe from plain values; `name` stands at the head of messages.

        Raises:
            RecipeError: a key that is not known or a value that makes no sense; one line that says which.
        """
        try:
            recipe = cls.model_validate(values)
        except ValidationError as error:
            raise RecipeError(f"{name}: {shortened(first_problem(error, cls.model_fields))}") from None
        recipe._folder = folder or Path()
        return recipe

    @classmethod
    def load(cls, path: str | Path, model: str = DEFAULT_MODEL) -> Recipe:
        """Read a YAML or JSON file, a pack (`steer.packs`), or one that ships, such as `starter:asr/false-alarms`.

        `model` is what it is for if it does not say.

        Raises:
            RecipeError: as `build`, or the file is not there, no YAML, or a damaged pack.
        """
        path = starter.recipe_file(str(path)) if starter.is_recipe_name(str(path)) else Path(path)
        if path.suffix == SUFFIX:
            return cls.build(named_parts(load_pack(path).recipe, path.name), str(path), path.parent)
        try:
            values = read_yaml(path)
        except OSError as error:
            raise RecipeError(f"{path}: cannot be read ({error.strerror})") from error
        except UNREADABLE as error:
            mark = getattr(error, "problem_mark", None)
            where = f" in line {mark.line + 1}" if mark else ""
            raise RecipeError(f"{path}: neither YAML nor JSON{where} ({one_line(error, 80)})") from error
        if not isinstance(values, dict):
            raise RecipeError(f"{path}: holds no keys; a recipe has {', '.join(cls.model_fields)}")
        return cls.build({"model": model, **values}, str(path), path.parent)

    def save(self, path: str | Path, force: bool = False) -> Path:
        """Write YAML, or JSON where the name ends so; files it names are written relative to the new place.

        Raises:
            RecipeError: the file exists (without `force`) or cannot be written.
        """
        path = Path(path)
        if path.exists() and not force:
            raise RecipeError(f"{path}: exists already; use --force (force=True) to overwrite it")
        values = self.to_dict(path.parent)
        as_yaml = yaml.safe_dump(values, sort_keys=False, default_flow_style=None)
        text = json.dumps(values, indent=2) + "\n" if path.suffix.lower() == ".json" else as_yaml
        try:
            write_text(path, text)
        except OSError as error:
            raise RecipeError(f"{path}: could not be written ({error.strerror})") from error
        return path

    def to_dict(self, folder: Path | None = None) -> dict[str, Any]:
        """Plain values as in the file; with `folder`, paths are relative to it."""
        return self.with_files(lambda source: source if folder is None else self._moved(source, folder))

    def with_files(self, move: Callable[[str], Any]) -> dict[str, Any]:
        """Plain values as in the file, with what `move` gives in place of each model, SAE and file named."""
        values = self.model_dump(mode="json", exclude_none=True)
        for key in [key for key in ("goals", "edits", "voice") if not values[key]]:
            del values[key]
        if self.limit:
            del values["limit"]
        values["model"] = move(self.model)
        values["saes"] = {site: move(source) for site, source in self.saes.items()}
        for spec, edit in zip(self.edits, values.get("edits", []), strict=False):
            if RECIPE_EDITS[spec.kind].vector:
                edit[spec.kind] = move(edit[spec.kind])
        for one in [values, *values.get("edits", [])]:
            if "when" in one:
                one["when"] = moved_gate(one["when"], move)
        return values

    def located(self, source: str) -> str:
        """A path that is there relative to the recipe, or `source` as it is."""
        before, path, behind = path_in(source)
        there = self._folder / path
        return f"{before}{there}{behind}" if os.path.exists(there) else source

    def _moved(self, source: str, folder: Path) -> str:
        before, path, behind = path_in(source)
        there = self._folder / path
        if Path(path).is_absolute() or not os.path.exists(there):
            return source
        return f"{before}{os.path.relpath(there, folder)}{behind}"

    # --- what it names ---

    def open(self, device: str | torch.device = "cpu", model: str | AudioModel | None = None) -> SteeredModel:
        """The model and the SAEs, on a device; `with steered.edit(recipe.edits_for()): ...` does what it says.

        `model` is taken in place of the recipe's own: the same weights in another library, or in a file.

        Raises:
            ModelError, SAEError, SiteError: one of them cannot be opened, or they do not fit.
        """
        if not isinstance(model, AudioModel):
            model = open_model(model or self.located(self.model), device=device)
        return SteeredModel(model, {site: load_sae(self.located(source)) for site, source in self.saes.items()})

    @property
    def wanted(self) -> dict[str, float]:
        """The goals that are set, by name."""
        return dict(self.goals)

    def control_vectors(self) -> dict[str, ControlVector]:
        """The vectors that lie beside the SAEs, by name, each with its site; the first SAE that has one counts.

        Raises:
            RecipeError: a goal, or what the voice shall do, has no vector.
            EditError, SAEError: files that cannot be read.
        """
        found: dict[str, ControlVector] = {}
        for site, source in self.saes.items():
            path = find_folder(self.located(source)) / VECTORS
            for name, vector in load_vectors(path).items() if os.path.isfile(path) else ():
                found.setdefault(name, ControlVector(vector.vector, name, vector.unit, site))
        for goal in self.wanted:
            if goal not in found:
                names = ", ".join(self.saes.values())
                raise RecipeError(f"goal {goal}: no control vector {goal!r} beside {names} (in {VECTORS})")
        self.voice.check_vectors(found, f"beside {', '.join(self.saes.values())} (in {VECTORS})")
        return found

    def edits_for(
        self, strengths: Mapping[str, float] | None = None, vectors: Mapping[str, ControlVector] | None = None
    ) -> dict[str, list[Edit]]:
        """{site: edits}: shifts along the goals' `vectors` by `strengths`, then the recipe's own edits.

        In this order what the recipe says of a feature is the last word.

        Raises:
            EditError: a site without an SAE, values that make no sense, or a vector file that cannot be read.
        """
        edits: dict[str, list[Edit]] = {}
        for name, strength in (strengths or {}).items():
            if strength:
                assert vectors is not None
                shift = Shift(vectors[name].vector, strength, during=self.during)
                edits.setdefault(vectors[name].site, []).append(shift)
        for spec in self.edits:
            factor = 1.0 if spec.strength is None else value_of(spec.strength)
            said = Said(spec.during or self.during, factor, self.located, spec.site, bool(spec.keep_norm))
            when = spec.when or self.when
            gate = when.load(self.located) if when else None
            made = RECIPE_EDITS[spec.kind].edits(spec.what, said)
            for site, some in made.items() if isinstance(made, dict) else [(self._site_of(spec), made)]:
                if site is None or (site not in self.saes and any(edit.of_features for edit in some)):
                    named = "no site" if site is None else f"site {site!r}"
                    there = ", ".join(self.saes) or "no site"
                    raise EditError(f"an edit names {named}; there are SAEs at {there}")
                edits.setdefault(site, []).extend(edit.conditional(gate) for edit in some)
        return edits

    def _site_of(self, spec: EditSpec) -> str | None:
        return spec.site or (next(iter(self.saes)) if len(self.saes) == 1 else None)


def path_in(source: str) -> tuple[str, str, str]:
    """A path, and what stands around it: a family before it (`ct2:DIR`, `whisper:` and a .pt file, others with a path
    of several parts), and behind any file a `#` with a name."""
    family, colon, rest = source.partition(":")
    names_path = family == "ct2" or (rest.endswith(".pt") if family == "whisper" else "/" in rest)
    before = family + colon if family.isalnum() and family not in ("starter", "hf") and names_path else ""
    path, mark, name = source.removeprefix(before).partition("#")
    return before, path, f"{mark}{name}"


__all__ = ["EditSpec", "Recipe"]
