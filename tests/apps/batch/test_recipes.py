"""Recipes that a manifest's rows bring, with the command's options on top."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from apps.batch.digest import fingerprint
from apps.batch.recipes import OwnRecipe, own_recipes
from apps.flags import recipe_of
from apps.inputs import Input
from steer.errors import RecipeError
from steer.recipe import Recipe

SAES = {"model": "m", "saes": {"latent": "s"}}


def louder(base: Recipe | None) -> Recipe:
    """As `steer edit --loudness +3dB --ablate 7`."""
    return recipe_of(base, {"loudness": "+3dB"}, [{"ablate": [7]}], [], None, None, None, None)


def row(folder: Path, recipe: Any) -> Input:
    return Input(folder / "a.wav", Path("a.wav"), folder, recipe)


def text_of(recipe: Recipe | None) -> str:
    return "none" if recipe is None else json.dumps(recipe.to_dict())


@pytest.fixture
def own() -> OwnRecipe:
    return own_recipes(text_of, louder)


def test_a_row_without_a_recipe_has_the_commands(own: OwnRecipe, tmp_path: Path) -> None:
    assert own(row(tmp_path, None)) == (None, "none")


@pytest.mark.parametrize("inside", [True, False])
def test_options_come_on_top(own: OwnRecipe, tmp_path: Path, inside: bool) -> None:
    values = {**SAES, "goals": {"loudness": "-9dB", "brightness": "+5%"}, "edits": [{"ablate": [3]}]}
    path = tmp_path / "r.yaml"
    path.write_text(json.dumps(values))
    recipe, print_ = own(row(tmp_path, values if inside else path))
    assert recipe is not None and print_ == text_of(recipe)
    assert recipe.wanted == {"loudness": 3.0, "brightness": 5.0}
    assert [edit.ablate for edit in recipe.edits] == [[3], [7]]


def test_the_commands_model_is_for_recipes_that_name_none(tmp_path: Path) -> None:
    own = own_recipes(text_of, lambda recipe: recipe, "mine")
    for values, model in (({"saes": SAES["saes"]}, "mine"), (SAES, "m")):
        (tmp_path / f"{model}.yaml").write_text(json.dumps(values))
        for given in (values, tmp_path / f"{model}.yaml"):
            recipe, _ = own(row(tmp_path, given))
            assert recipe is not None and recipe.model == model


def test_each_is_read_once(tmp_path: Path) -> None:
    counted: list[str] = []

    def count(recipe: Recipe | None) -> str:
        counted.append(text_of(recipe))
        return "f"

    own = own_recipes(count, louder)
    (tmp_path / "r.yaml").write_text(json.dumps(SAES))
    found = [own(row(tmp_path, tmp_path / "r.yaml"))[0] for _ in range(3)]
    assert found[0] is found[1] is found[2]
    for residual in ("keep", "drop", "keep"):
        own(row(tmp_path, {**SAES, "residual": residual}))
    assert len(counted) == 3


def test_paths_of_a_recipe_inside_are_relative_to_the_manifest(tmp_path: Path) -> None:
    own = own_recipes(fingerprint, louder)
    found = []
    for folder in (tmp_path / "1", tmp_path / "2"):
        (folder / "s").mkdir(parents=True)
        (folder / "s" / "cfg.json").write_text(folder.name)
        recipe, print_ = own(row(folder, SAES))
        assert recipe is not None
        found.append(((Path(recipe.located(recipe.saes["latent"])) / "cfg.json").read_text(), print_))
    assert [name for name, _ in found] == ["1", "2"] and found[0][1] != found[1][1]


@pytest.mark.parametrize(
    ("recipe", "told"),
    [
        ({**SAES, "goal": 1}, "recipe of .*a.wav: there is no key 'goal'; did you mean 'goals'"),
        ({**SAES, "goals": {"loudness": float("nan")}}, "recipe of .*a.wav: goals.loudness: .*finite"),
        ("none.yaml", "none.yaml: cannot be read"),
    ],
)
def test_mistakes_name_the_file(own: OwnRecipe, tmp_path: Path, recipe: Any, told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        own(row(tmp_path, tmp_path / recipe if isinstance(recipe, str) else recipe))
