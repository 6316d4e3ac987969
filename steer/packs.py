"""Packs: one safetensors file that holds a recipe and only what it touches of its SAEs, with its gates and vectors.

`FILE#NAME` names a part, wherever an SAE, a gate or a control vector is named by its file. An SAE in a pack has only
the touched features, renumbered from 0: each row of `W_dec` and column of `W_enc` is the SAE's own, and
`info.extra["features"]` has their ids there. `steer.recipe_pack` writes packs.

Tensors are called `sae.SITE.W_enc`, ..., `gate.NAME.weights`, ..., and vectors by their names. The metadata has, as
JSON, `pack`: {"recipe", "saes": {site: ...}, "gates": {name: ...}, "effect", "version"}, and `vectors`, as any file of
control vectors.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from hooks.errors import AudioSteerError, one_line
from hooks.files import whole_file
from hooks.weights import UNREADABLE
from steer.errors import RecipeError
from steer.formats.packed import SUFFIX, load_part, read_pack
from steer.gates import Gate, described, tensors_of
from steer.sae import SAE
from steer.vectors import ControlVector, load_vectors

VERSION = 1


@dataclass
class Pack:
    """What a file holds. In `recipe`, plain values as in a recipe's file, `#NAME` is a part of the pack; `effect` is
    what the recipe was measured to do, {what: value}."""

    recipe: dict[str, Any]
    saes: dict[str, SAE] = field(default_factory=dict)
    gates: dict[str, Gate] = field(default_factory=dict)
    vectors: dict[str, ControlVector] = field(default_factory=dict)
    effect: dict[str, Any] = field(default_factory=dict)


def save_pack(pack: Pack, path: Path) -> None:
    """Raises RecipeError if it cannot be written."""
    tensors: dict[str, Tensor] = {}
    about: dict[str, Any] = {"version": VERSION, "recipe": pack.recipe, "effect": pack.effect, "saes": {}, "gates": {}}
    for site, sae in pack.saes.items():
        tensors |= {f"sae.{site}.{name}": value.detach().contiguous().cpu() for name, value in sae.state_dict().items()}
        how = {"activation": sae.activation, "center": sae.center, "normalize": sae.normalize}
        about["saes"][site] = {**how, "info": sae.info.to_dict()}
    for name, gate in pack.gates.items():
        tensors |= {f"gate.{name}.{key}": value for key, value in tensors_of(gate).items()}
        about["gates"][name] = described(gate)
    vectors = {
        name: {"name": one.name, "unit": one.unit, "site": one.site, "model": one.model}
        for name, one in pack.vectors.items()
    }
    tensors |= {name: one.vector.detach().float().contiguous().cpu() for name, one in pack.vectors.items()}
    try:
        with whole_file(path) as partial:
            save_file(tensors, partial, {"pack": json.dumps(about), "vectors": json.dumps(vectors)})
    except (OSError, TypeError, SafetensorError) as error:
        raise RecipeError(f"{path}: the pack could not be written ({one_line(error)})") from error


def load_pack(path: str | Path) -> Pack:
    """All of a pack.

    Raises:
        RecipeError: there is no such file, or it is damaged or not a pack.
    """
    path = Path(path)
    try:
        about = json.loads(read_pack(path, "#")[0]["pack"])
        if about["version"] != VERSION:
            raise ValueError(f"of version {about['version']!r}, and only {VERSION} is known")
        recipe, effect = about["recipe"], about["effect"]
        if not (isinstance(recipe, dict) and isinstance(effect, dict)):
            raise TypeError("its recipe and its effect are keys and values")
        return Pack(
            recipe,
            {site: load_part(path, site) for site in about["saes"]},
            {name: Gate.load(f"{path}#{name}") for name in about["gates"]},
            load_vectors(path),
            effect,
        )
    except FileNotFoundError as error:
        raise RecipeError(f"{path}: cannot be read (no such file)") from error
    except KeyError as error:
        raise RecipeError(f"{path}: not a pack, or a damaged one (it has no {one_line(error)})") from error
    except AudioSteerError as error:
        raise RecipeError(str(error)) from error
    except UNREADABLE as error:
        raise RecipeError(f"{path}: not a pack, or a damaged one ({one_line(error)})") from error


def named_parts(recipe: dict[str, Any], file: str) -> dict[str, Any]:
    """A pack's recipe, in which `#NAME` is `FILE#NAME`."""

    def named(value: Any) -> Any:
        if isinstance(value, str) and value.startswith("#"):
            return f"{file}{value}"
        if isinstance(value, dict):
            return {key: named(one) for key, one in value.items()}
        return [named(one) for one in value] if isinstance(value, list) else value

    return {key: named(value) for key, value in recipe.items()}


__all__ = ["SUFFIX", "Pack", "load_pack", "named_parts", "save_pack"]
