"""The starter: small models, SAEs, probes, control vectors and recipes that ship in the package: it runs at once.

`starter:codec` is a codec whose pitch can be moved, `starter:wavtokenizer` one that keeps the waveform and has tokens;
`starter:codec/latent` is an SAE on the site `latent`, with `vectors.safetensors` and `probes.safetensors` beside it; a
file `asr/NAME.yaml` a recipe `starter:asr/NAME`. For models that are not here there are SAEs and recipes as packs
(`steer.packs`): `whisper-tiny.en/encoder.3` is `whisper:tiny.en/encoder.3`, and `whisper-tiny.en/NAME.safetensors` the
recipe `whisper:tiny.en/NAME`. Every SAE has an atlas of its features beside it. Each folder has a card (README.md):
data, licence, how it was made, measured quality.
"""

from __future__ import annotations

import os
from pathlib import Path

from hooks import starter as shipped
from hooks.starter import FOLDER, model_folder, models
from steer.errors import RecipeError, SAEError
from steer.formats import SCHEMES as SAE_SCHEMES

ATLAS = "atlas.safetensors"


def folder_of(model: str) -> Path:
    """Where the SAEs of a model lie, `starter:codec` or a public one such as `whisper:tiny.en`."""
    return shipped.FOLDER / model.removeprefix("starter:").replace(":", "-", 1)


def saes(model: str) -> list[str]:
    """Names of the SAEs that are here for a model such as `starter:codec` or `whisper:tiny.en`."""
    if not is_model_name(model):
        return []
    root = folder_of(model)
    return [f"{model}/{path.parent.relative_to(root)}" for path in sorted(root.glob("*/cfg.json"))]


def public_models() -> list[str]:
    """Names of the models that are not here, but SAEs or recipes for them."""
    return [path.name.replace("-", ":", 1) for path in sorted(shipped.FOLDER.glob("*-*/"))]


def is_model_name(text: str) -> bool:
    """Whether it is a name, `starter:asr` or `whisper:tiny.en`, and not the path of a file."""
    return text in (*models(), *public_models())


def is_sae_name(text: str) -> bool:
    """Whether it begins with the name of a model, and is not the path of a file."""
    return text.startswith("starter:") or is_model_name(text.rpartition("/")[0])


def recipes() -> list[str]:
    """Names of the recipes that are here."""
    return list(recipe_files())


def recipe_files() -> dict[str, Path]:
    """{name: file} of the recipes: `asr/NAME.yaml`, and packs as `whisper-tiny.en/NAME.safetensors`."""
    plain = {f"starter:{path.parent.name}/{path.stem}": path for path in sorted(shipped.FOLDER.glob("*/*.yaml"))}
    packs = sorted(shipped.FOLDER.glob("*-*/*.safetensors"))
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
    return sae_folder(name) / ATLAS


def sae_folder(name: str) -> Path:
    """Of `starter:codec/latent` or `whisper:tiny.en/encoder.3`. Raises SAEError if there is no such SAE."""
    model, _, site = name.rpartition("/")
    if name not in saes(model):
        known = [sae for one in (*models(), *public_models()) for sae in saes(one)]
        kind = "starter SAE" if name.startswith("starter:") else "SAE that ships called"
        raise SAEError(f"there is no {kind} {name.removeprefix('starter:')!r}; there are {', '.join(known)}")
    return folder_of(model) / site


SAE_SCHEMES["starter"] = lambda rest: sae_folder(f"starter:{rest}")
SAE_SCHEMES["whisper"] = lambda rest: sae_folder(f"whisper:{rest}")

__all__ = [
    "ATLAS",
    "FOLDER",
    "atlas_file",
    "is_recipe_name",
    "is_sae_name",
    "model_folder",
    "models",
    "public_models",
    "recipe_file",
    "recipes",
    "sae_folder",
    "saes",
]
