"""Malformed recipes, packs and gates, through `Recipe.load`, and where that goes, through `Editor`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import safe_open

from steer.editing.editor import Editor
from steer.gates import Gate, GateProbe
from steer.recipe import Recipe
from steer.recipe_pack import pack_recipe
from tests.fuzz.child import Case
from tests.fuzz.mutate import mutated
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
    yield from packs(folder, trees[0], count // 3)


def packs(folder: Path, tree: dict[str, Any], count: int) -> Iterator[Case]:
    """Packs and gates with damaged bytes, and packs that say something else of what they hold."""
    gate, pack, other = (folder / name for name in ("gate.safetensors", "pack.safetensors", "recipe.json"))
    Gate(GateProbe(torch.ones(1, 2), 0.5, [1, 4], site="latent"), 1.0, 0.5).save(gate)
    edits = [
        {"ablate": [3, 7], "when": "gate.safetensors"},
        {"shift": f"{tree['saes']['latent']}/vectors.safetensors#loudness", "strength": 2.0},
    ]
    gated = {"model": tree["model"], "saes": tree["saes"], "edits": edits}
    pack_recipe(Recipe.build(gated, folder=folder), pack)
    other.write_text(json.dumps(gated))
    for path in (pack, other):
        yield Case(f"good {path.name}", lambda path=path: attack(path))  # type: ignore[misc]
    seeds = {path: path.read_bytes() for path in (pack, gate)}
    with safe_open(str(pack), "pt") as file:
        said = {key: json.loads(value) for key, value in file.metadata().items()}
    tensors = safetensors.torch.load(seeds[pack])
    for index in range(count):
        rng = np.random.default_rng([12, index])
        pack.write_bytes(mutated(seeds[pack], rng, seeds[gate], header=2500))
        yield Case(f"pack {index}", lambda: attack(pack))
        text = mutants([said["pack"]], rng).decode("utf-8", "replace")
        safetensors.torch.save_file(tensors, pack, {"pack": text, "vectors": json.dumps(said["vectors"])})
        yield Case(f"pack that says something else {index}", lambda: attack(pack))
        gate.write_bytes(mutated(seeds[gate], rng, seeds[pack], header=600))
        yield Case(f"gate {index}", lambda: attack(other))
        gate.write_bytes(seeds[gate])
