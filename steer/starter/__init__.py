"""The starter: small models, SAEs, probes, control vectors and recipes that ship in the package: it runs at once.

`starter:codec` is a codec whose pitch can be moved, `starter:wavtokenizer` one that keeps the waveform and has tokens;
`starter:codec/latent` is an SAE on the site `latent`, with `vectors.safetensors` and `probes.safetensors` beside it; a
file `asr/NAME.yaml` a recipe `starter:asr/NAME`. Every SAE has an atlas of its features beside it. Each folder has a
card (README.md): data, licence, how it was made, measured quality.
"""

from __future__ import annotations

from pathlib import Path

from hooks import starter as shipped
from hooks.starter import FOLDER, model_folder, models
from steer.errors import RecipeError, SAEError
from steer.formats import SCHEMES as SAE_SCHEMES

ATLAS = "atlas.safetensors"


def saes(model: str) -> list[str]:
    """Names of the SAEs that are here for a model such as `starter:codec`."""
    root = shipped.FOLDER / model.removeprefix("starter:")
    return [f"{model}/{path.parent.relative_to(root)}" for path in sorted(root.glob("*/cfg.json"))]


def recipes() -> list[str]:
    """Names of the recipes that are here."""
    return [f"starter:{path.parent.name}/{path.stem}" for path in sorted(shipped.FOLDER.glob("*/*.yaml"))]


def recipe_file(name: str) -> Path:
    """Raises RecipeError if there is no such recipe."""
    if name not in recipes():
        raise RecipeError(f"there is no starter recipe {name!r}; there are {', '.join(recipes()) or 'none'}")
    return shipped.FOLDER / f"{name.removeprefix('starter:')}.yaml"


def atlas_file(name: str) -> Path:
    """Where the atlas of an SAE such as `starter:codec/latent` lies; raises SAEError if there is no such SAE."""
    return sae_folder(name.removeprefix("starter:")) / ATLAS


def sae_folder(name: str) -> Path:
    folder = shipped.FOLDER / name
    known = [sae for model in models() for sae in saes(model)]
    if f"starter:{name}" not in known:
        raise SAEError(f"there is no starter SAE {name!r}; there are {', '.join(known)}")
    return folder


SAE_SCHEMES["starter"] = sae_folder

__all__ = ["ATLAS", "FOLDER", "atlas_file", "model_folder", "models", "recipe_file", "recipes", "sae_folder", "saes"]
