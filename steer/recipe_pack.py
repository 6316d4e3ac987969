"""Pack a recipe with what it touches of its SAEs into one file, which is applied without the SAEs.

    pack_recipe(Recipe.load("false-alarms.yaml"), "false-alarms.safetensors", {"clips with words": "57 of 62 -> 0"})
    Recipe.load("false-alarms.safetensors")

Of each SAE only the columns and rows of the features that edits and gates name are taken, thresholds included. A shift
by a vector of many features moves the activation by one direction, whatever the features are; that becomes the row of a
feature that never fires. Only where features are decided one by one is all that the same; other SAEs are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from steer.edits import AddDirection, Edit, FeatureEdit, Shift
from steer.errors import RecipeError
from steer.fit import is_public
from steer.formats import load_sae
from steer.formats.assemble import assemble
from steer.gates import Gate
from steer.packs import Pack, save_pack
from steer.recipe import Recipe
from steer.recipe_edits import RECIPE_EDITS, EditSpec, Said
from steer.sae import SAE
from steer.vectors import ControlVector, load_vector

FEW = 64
"""A vector of at most so many features is packed as what it is."""


def pack_recipe(
    recipe: Recipe, path: str | Path, effect: Mapping[str, Any] | None = None, *, force: bool = False
) -> Pack:
    """Write a recipe of edits as one file; `effect` says what it was measured to do, {what: number or text}.

    Raises:
        RecipeError: goals or a voice, an edit of another kind than features and vectors, an SAE whose features depend
            on each other, or a file that exists (without `force`) or cannot be written.
        EditError, SAEError: what the recipe names cannot be read, or does not fit.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise RecipeError(f"{path}: a pack is a file whose name ends in .safetensors")
    if path.exists() and not force:
        raise RecipeError(f"{path}: exists already; use --force (force=True) to overwrite it")
    if recipe.wanted or recipe.voice.active:
        raise RecipeError("a pack holds edits; goals and voice need the SAE's own control vectors")
    if not recipe.edits:
        raise RecipeError("the recipe has no edits to pack")
    packer = Packer(recipe)
    pack = Pack(packer.values(path.parent), packer.saes(), packer.gates, packer.vectors, dict(effect or {}))
    save_pack(pack, path)
    return pack


@dataclass
class Kept:
    """What is kept of an SAE: features by their ids, and directions [D] that shifts move along."""

    sae: SAE
    features: list[int]
    directions: list[Tensor] = field(default_factory=list)

    def places(self, features: Iterable[int]) -> list[int]:
        place = {feature: number for number, feature in enumerate(self.features)}
        return [place[feature] for feature in features]


class Packer:
    """A recipe's edits in terms of what is kept."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.gates: dict[str, Gate] = {}
        self.vectors: dict[str, ControlVector] = {}
        self.shifts: list[str] = []
        """The names of the vectors that are of features."""
        self.specs: list[dict[str, Any]] = []
        edits = recipe.edits_for()
        self.gate_names: dict[Gate, str] = {}
        sites = {site for site, some in edits.items() if any(edit.of_features for edit in some)}
        for edit in (edit for some in edits.values() for edit in some):
            if edit.when is not None and edit.when.probe.features is not None:
                sites.add(edit.when.site)
        if sites - recipe.saes.keys():
            raise RecipeError(f"there is no SAE at {min(sites - recipe.saes.keys())!r} to pack what its gate reads")
        self.kept = {site: self._kept(site, edits) for site in recipe.saes if site in sites}
        for spec in recipe.edits:
            self.specs += self._specs(spec)

    def _kept(self, site: str, edits: Mapping[str, Sequence[Edit]]) -> Kept:
        source = self.recipe.saes[site]
        sae = load_sae(self.recipe.located(source))
        if not sae.separable:
            how = "are RMS-normalised together" if sae.rms_norm else f"of {sae.activation} depend on each other"
            raise RecipeError(f"{source}: its features {how}, so that some of them cannot be packed without the others")
        every = [edit for some in edits.values() for edit in some]
        named = {feature for edit in edits.get(site, ()) for feature in touched(edit)}
        for edit in every:
            if edit.when is not None and edit.when.site == site:
                named |= set(edit.when.probe.features or ())
        return Kept(sae, sorted(int(id) for id in sae.check_features(sorted(named))))

    def _specs(self, spec: EditSpec) -> list[dict[str, Any]]:
        """An edit as it is written in the pack: directions of several sites are several edits there."""
        written: dict[str, Any] = {**spec.model_dump(mode="json", exclude_none=True), "during": None, "when": None}
        when, during = spec.when or self.recipe.when, spec.during or self.recipe.during
        if when is not None:
            written["when"] = "#" + self._gate(when.load(self.recipe.located))
        if during:
            written["during"] = [list(span) for span in during]
        made = RECIPE_EDITS[spec.kind].edits(spec.what, Said(None, 1.0, self.recipe.located, spec.site))
        by_site = made if isinstance(made, dict) else {spec.site or next(iter(self.recipe.saes)): made}
        specs = [{**written, spec.kind: self._what(spec, some, site), "site": site} for site, some in by_site.items()]
        return [{key: value for key, value in one.items() if value is not None} for one in specs]

    def _what(self, spec: EditSpec, made: Sequence[Edit], site: str) -> Any:
        """What stands behind an edit's kind, in terms of what is kept of the site."""
        if RECIPE_EDITS[spec.kind].vector:
            if all(isinstance(edit, AddDirection) for edit in made) and len(made) == 1:
                (direction,) = made
                assert isinstance(direction, AddDirection)
                return "#" + self._named(ControlVector(direction.vector, spec.kind, "", site, direction.made_for))
            if all(isinstance(edit, Shift) for edit in made):
                return "#" + self._vector(load_vector(self.recipe.located(spec.what)), site)
        elif all(isinstance(edit, FeatureEdit) for edit in made) and isinstance(spec.what, list | Mapping):
            places = self.kept[site].places(spec.what)
            values = spec.model_dump(mode="json")[spec.kind]
            return dict(zip(places, values.values(), strict=True)) if isinstance(values, dict) else places
        raise RecipeError(f"{spec.kind}: a pack holds edits of features and shifts by vectors, not this one")

    def _named(self, vector: ControlVector) -> str:
        name = f"vector{len(self.vectors)}"
        self.vectors[name] = replace(vector, model=self._model(vector.model))
        return name

    def _model(self, made_for: str) -> str:
        """The published name that the recipe gives in place of a file of this machine."""
        return self.recipe.model if is_public(self.recipe.model) and not is_public(made_for) else made_for

    def _vector(self, vector: ControlVector, site: str) -> str:
        """The name of a shift's vector: of the features that are kept as it is, of the others by a direction."""
        kept, values_F = self.kept[site], vector.vector.float()
        if len(values_F) != kept.sae.d_sae:
            raise RecipeError(f"vector {vector.name}: {len(values_F)} numbers for {kept.sae.d_sae} features")
        rest_F = values_F.clone()
        rest_F[kept.features] = 0
        moves = bool(rest_F.any())
        if moves:
            kept.directions.append(rest_F @ kept.sae.W_dec.detach().float())
        # how many directions there will be is not known yet: `saes` makes the vectors as long as it needs
        new_F = torch.zeros(len(kept.features) + len(kept.directions))
        new_F[: len(kept.features)] = values_F[kept.features]
        if moves:
            new_F[-1] = 1.0
        name = self._named(replace(vector, vector=new_F, site=site))
        self.shifts.append(name)
        return name

    def _gate(self, gate: Gate) -> str:
        if gate not in self.gate_names:
            name, probe = f"gate{len(self.gates)}", replace(gate.probe, model=self._model(gate.probe.model))
            if probe.features is not None:
                places = self.kept[gate.site].places(probe.features)
                probe = replace(probe, features=tuple(places))
            self.gates[name] = replace(gate, probe=probe)
            self.gate_names[gate] = name
        return self.gate_names[gate]

    def saes(self) -> dict[str, SAE]:
        """The SAEs of what is kept; one without features is left out."""
        found = {}
        for site, kept in self.kept.items():
            if kept.features or kept.directions:
                found[site] = reduced(kept)
        for name in self.shifts:
            vector = self.vectors[name]
            missing = found[vector.site].d_sae - len(vector.vector)
            self.vectors[name] = replace(vector, vector=torch.nn.functional.pad(vector.vector, (0, missing)))
        return found

    def values(self, folder: Path) -> dict[str, Any]:
        """The recipe as it is written in the pack."""
        values = self.recipe.to_dict(folder)
        for key in ("during", "when"):
            values.pop(key, None)
        saes = {site: f"#{site}" for site, kept in self.kept.items() if kept.features or kept.directions}
        return {**values, "saes": saes, "edits": self.specs}


def touched(edit: Edit) -> Sequence[int]:
    """The features that have to be there for an edit: of a shift by many, none."""
    if isinstance(edit, Shift):
        moved = edit.vector.nonzero()[:, 0].tolist()
        return moved if len(moved) <= FEW else ()
    return edit.touched


def reduced(kept: Kept) -> SAE:
    """An SAE of some of another one's features, and of directions: those never fire."""
    sae, ids = kept.sae, torch.tensor(kept.features, dtype=torch.long)
    count = len(kept.directions)
    rows_ND = torch.stack(kept.directions) if count else torch.zeros(0, sae.d_in)
    state = {name: value.detach().float() for name, value in sae.state_dict().items()}
    own = {name: torch.cat([state[name][ids], torch.zeros(count)]) for name in sae.own}
    tensors = {
        "W_enc": torch.cat([state["W_enc"][:, ids], torch.zeros(sae.d_in, count)], dim=1),
        "b_enc": torch.cat([state["b_enc"][ids], torch.full((count,), -1.0)]),
        "W_dec": torch.cat([state["W_dec"][ids], rows_ND]),
        "b_dec": state["b_dec"],
        **own,
    }
    info = replace(sae.info, extra={**sae.info.extra, "features": kept.features, "directions": count, "of": sae.d_sae})
    found = assemble(
        "the pack",
        sae.activation,
        tensors,
        1 if sae.function.needs_k else None,
        center=sae.center,
        normalize=sae.normalize,
        info=info,
    )
    noise_ND = torch.randn(64, sae.d_in, generator=torch.Generator().manual_seed(0))
    if count and found.encode(noise_ND)[:, len(ids) :].any():
        raise RecipeError(f"features of {sae.activation} fire without an input: a shift by many cannot be packed")
    return found
