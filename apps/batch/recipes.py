"""Recipes of their own that the rows of a manifest bring."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from apps.inputs import Input
from steer.recipe import DEFAULT_MODEL, Recipe

OwnRecipe = Callable[[Input], tuple[Recipe | None, str]]


def own_recipes(
    fingerprint: Callable[[Recipe | None], str], finished: Callable[[Recipe], Recipe], model: str = DEFAULT_MODEL
) -> OwnRecipe:
    """Gives an input's own recipe (None where it has none) and the fingerprint of what will be done with it.

    Each recipe is read once, and `finished` by the command's options; `model` is for those that name none. Raises
    RecipeError where one makes no sense.
    """
    known: dict[tuple[Path, str], tuple[Recipe | None, str]] = {}

    def own(one: Input) -> tuple[Recipe | None, str]:
        key = one.folder, str(one.recipe)
        if key not in known:
            recipe = None
            if isinstance(one.recipe, Path):
                recipe = finished(Recipe.load(one.recipe, model))
            elif one.recipe is not None:
                values = {"model": model, **one.recipe}
                recipe = finished(Recipe.build(values, f"recipe of {one.source}", one.folder))
            known[key] = recipe, fingerprint(recipe)
        return known[key]

    return own
