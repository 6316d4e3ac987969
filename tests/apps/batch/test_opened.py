"""Models are opened once for all recipes that name them, and few are kept."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from apps.batch.opened import MODELS, Opened
from steer.recipe import Recipe


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the models that were opened, in turn; each is a new object."""
    names: list[str] = []

    def open_it(recipe: Recipe, device: str) -> object:
        names.append(recipe.model)
        return object()

    monkeypatch.setattr(Recipe, "open", open_it)
    return names


def recipe(model: str, sae: str = "sae", **values: object) -> Recipe:
    return Recipe.build({"model": model, "saes": {"latent": sae}, **values})


def test_recipes_of_one_model_share_it(opened: list[str]) -> None:
    models = Opened()
    first = models.get(recipe("a"))
    assert models.get(recipe("a", goals={"loudness": 3}, residual="keep", during=[[0, 1]])) is first
    assert models.get(recipe("a", "other")) is not first  # another SAE is another model
    assert opened == ["a", "a"]


def test_the_last_ones_are_kept(opened: list[str]) -> None:
    models = Opened()
    for name in "abacab":
        models.get(recipe(name))
    assert MODELS == 2 and opened == ["a", "b", "c", "b"]


def test_the_same_words_in_another_folder_are_another_model(opened: list[str], tmp_path: Path) -> None:
    models = Opened()
    for folder in ("1", "2", "1"):
        (tmp_path / folder / "sae").mkdir(parents=True, exist_ok=True)
        models.get(Recipe.build({"model": "a", "saes": {"latent": "sae"}}, folder=tmp_path / folder))
    assert opened == ["a", "a"]


def test_two_threads_open_one_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one is still at it while the second one asks."""
    began, count = threading.Event(), 0

    def open_it(recipe: Recipe, device: str) -> object:
        nonlocal count
        count += 1
        began.wait(0.1 if count == 1 else 0)
        return object()

    monkeypatch.setattr(Recipe, "open", open_it)
    models = Opened()
    with ThreadPoolExecutor(4) as threads:
        found = set(threads.map(lambda _: id(models.get(recipe("a"))), range(4)))
    assert len(found) == 1 and count == 1
