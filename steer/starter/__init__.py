"""The starter: small models, SAEs, probes, control vectors and recipes that ship in the package: it runs at once.

`starter:codec` is a codec whose pitch can be moved, `starter:wavtokenizer` one that keeps the waveform and has tokens;
`starter:codec/latent` is an SAE on the site `latent`, with `vectors.safetensors` and `probes.safetensors` beside it; a
file `asr/NAME.yaml` a recipe `starter:asr/NAME`. Every SAE has an atlas of its features beside it. Each folder has a
card (README.md): data, licence, how it was made, measured quality. Recipes for models that are not here are packs
(`steer.packs`): `packs/whisper-tiny.en/NAME.safetensors` is `whisper:tiny.en/NAME`.
"""

from __future__ import annotations

import os
from pathlib import Path

from hooks import starter as shipped
from hooks.starter import FOLDER, model_folder, models
from steer.errors import RecipeError, SAEError
from steer.formats import SCHEMES as SAE_SCHEMES

ATLAS, PACKS = "atlas.safetensors", "packs"


def saes(model: str) -> list[str]:
    """Names of the SAEs that are here for a model such as `starter:codec`."""
    root = shipped.FOLDER / model.removeprefix("starter:")
    return [f"{model}/{path.parent.relative_to(root)}" for path in sorted(root.glob("*/cfg.json"))]


def recipes() -> list[str]:
    """Names of the recipes that are here."""
    return list(recipe_files())


def recipe_files() -> dict[str, Path]:
    """{name: file} of the recipes: `asr/NAME.yaml`, and packs as `packs/whisper-tiny.en/NAME.safetensors`."""
    plain = {f"starter:{path.parent.name}/{path.stem}": path for path in sorted(shipped.FOLDER.glob("*/*.yaml"))}
    packs = sorted((shipped.FOLDER / PACKS).glob("*/*.safetensors"))
    return plain | {f"{path.parent.name.replace('-', ':', 1)}/{path.stem}": path for path in packs}


def is_recipe_name(text: str) -> bool:
    """Whether it is a name, `starter:asr/NAME` or `whisper:tiny.en/NAME`, and not the path of a file."""
    model, _, name = text.rpartition("/")
    family, colon, size = model.partition(":")
    named = bool(colon and size) and family.isalnum() and "/" not in size and name.find(".") < 0
    return text.startswith("starter:") or (named and len(family) > 1 and not os.path.exists(text))


def recipe_file(name: str) -> Path:
    """Raises RecipeError if there is no such recipe."""
    files = recipe_files()
    if name not in files:
        kind = "starter recipe" if name.startswith("starter:") else "recipe that ships"
        raise RecipeError(f"there is no {kind} {name!r}; there are {', '.join(files) or 'none'}")
    return files[name]


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

__all__ = [
    "ATLAS",
    "FOLDER",
    "atlas_file",
    "is_recipe_name",
    "model_folder",
    "models",
    "recipe_file",
    "recipes",
    "sae_folder",
    "saes",
]
