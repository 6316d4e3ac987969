"""Malformed recipes, through `Recipe.load`, and where that goes, through `Editor`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from steer.editing.editor import Editor
from steer.recipe import Recipe
from tests.fuzz.child import Case
from tests.fuzz.places import bad_paths
from tests.fuzz.texts import bombs, mutants
from tests.fuzz.tiny import codec_folder, sae_folder


def good(codec: str, sae: str) -> list[Any]:
    """Recipes that are done as they stand."""
    named = {"model": codec, "saes": {"latent": sae}}
    return [
        {**named, "goals": {"loudness": "+6dB"}, "residual": "keep"},
        {**named, "edits": [{"ablate": [3, 7], "during": [[0.5, 1.5]]}, {"scale": {"4": [[0, 1], [2, 1.5]]}}]},
        {**named, "edits": [{"clamp": {"5": 2.0}, "site": "latent"}], "during": [[0, 1], [2, 3]], "padding": False},
        {**named, "edits": [{"shift": f"{sae}/vectors.safetensors#loudness", "strength": 8}]},
        {**named, "edits": [{"shift": f"{sae}/vectors.safetensors", "strength": [[0, 1], [1, 2]]}], "residual": "drop"},
    ]


def attack(path: Path) -> None:
    recipe = Recipe.load(path)
    recipe.save(path.with_name("again.yaml"), force=True)
    Editor(recipe, pitch=False)


def cases(folder: Path, count: int) -> Iterator[Case]:
    trees = good(str(codec_folder(folder / "codec")), str(sae_folder(folder / "sae")))
    path = folder / "recipe.yaml"
    for index, tree in enumerate(trees):
        path.write_text(json.dumps(tree))
        yield Case(f"good {index}", lambda: attack(path))
    for name, place in bad_paths(folder / "paths", ".yaml").items():
        yield Case(f"path {name}", lambda place=place: Recipe.load(place), str(place))  # type: ignore[misc]
        for key, value in (("model", str(place)), ("saes", {"latent": str(place)}), ("edits", [{"shift": str(place)}])):
            path.write_text(json.dumps({**trees[0], key: value}))
            yield Case(f"{key} is path {name}", lambda: attack(path))
    for name, data in bombs().items():
        path.write_bytes(data)
        yield Case(name, lambda: attack(path))
    for index in range(count):
        path.write_bytes(mutants(trees, np.random.default_rng([11, index])))
        yield Case(f"mutant {index}", lambda: attack(path))
