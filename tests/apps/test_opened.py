"""What is opened, how often, and who waits for it; opening itself is counted and opens nothing."""

from __future__ import annotations

import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Lock, get_ident
from typing import Any
from weakref import ref

import pytest

from apps.opened import KEPT, Opened
from hooks import ModelError
from steer.recipe import Recipe

LONG_S = 20.0


class Model:
    """Stands for a model."""


class Openings:
    """Stands for `Recipe.open`: notes what is opened, does `on_open` meanwhile."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.devices: set[str] = set()
        self.on_open: Callable[[str], None] = lambda name: None

    def __call__(self, recipe: Recipe, device: str) -> Any:
        self.names.append(recipe.model)
        self.devices.add(device)
        self.on_open(recipe.model)
        return Model()


@pytest.fixture
def openings(monkeypatch: pytest.MonkeyPatch) -> Openings:
    openings = Openings()
    monkeypatch.setattr(Recipe, "open", lambda recipe, device: openings(recipe, device))
    return openings


def recipe(model: str, sae: str = "a", **more: Any) -> Recipe:
    return Recipe.build({"model": model, "saes": {"latent": sae}, **more})


def test_a_model_is_opened_once_for_all_that_is_done_with_it(openings: Openings) -> None:
    opened = Opened()
    first = opened(recipe("m"))
    assert opened(recipe("m", edits=[{"ablate": [3]}])) is first
    assert opened(recipe("m", goals={"loudness": 6}, during=[0, 1], residual="keep")) is first
    assert openings.names == ["m"]
    assert opened(recipe("m", "b")) is not first
    assert opened(recipe("n")) is not first
    assert openings.names == ["m", "m", "n"] and openings.devices == {"cpu"}
    Opened(device="cuda:1")(recipe("m"))
    assert openings.devices == {"cpu", "cuda:1"}


def test_the_same_words_in_another_folder_are_another_model(openings: Openings, tmp_path: Path) -> None:
    opened = Opened()
    for folder in ("1", "2", "1"):
        (tmp_path / folder / "sae").mkdir(parents=True, exist_ok=True)
        opened(Recipe.build({"model": "m", "saes": {"latent": "sae"}}, folder=tmp_path / folder))
    assert openings.names == ["m", "m"]


def test_opened_once_for_those_who_ask_while_it_is_being_opened(openings: Openings) -> None:
    opened, begun, go = Opened(), Event(), Event()

    def slow(name: str) -> None:
        begun.set()
        assert go.wait(LONG_S)

    openings.on_open = slow
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(opened, recipe("m"))]
        assert begun.wait(LONG_S)
        asked += [pool.submit(opened, recipe("m")) for _ in range(3)]
        go.set()
        assert len({id(one.result(LONG_S)) for one in asked}) == 1
    assert openings.names == ["m"]


def test_opened_once_for_one_who_comes_just_when_it_is_open(openings: Openings) -> None:
    class Handed:
        """A lock that goes to the one who waits for it, before the one who had it does anything else."""

        def __init__(self) -> None:
            self.lock, self.first, self.second_done = Lock(), get_ident(), Event()

        def __enter__(self) -> None:
            self.lock.acquire()

        def __exit__(self, *error: object) -> None:
            self.lock.release()
            if get_ident() == self.first:
                self.second_done.wait(LONG_S)

    opened, go = Opened(), Event()
    opened._opening = handed = Handed()  # type: ignore[assignment]
    openings.on_open = lambda name: go.set()

    def second() -> Any:
        try:
            assert go.wait(LONG_S)
            return opened(recipe("m"))
        finally:
            handed.second_done.set()

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(second)
        assert opened(recipe("m")) is asked.result(LONG_S)
    assert openings.names == ["m"]


def test_the_one_used_least_recently_goes(openings: Openings) -> None:
    opened = Opened(kept=2)
    a, b = opened(recipe("a")), opened(recipe("b"))
    assert opened(recipe("a")) is a  # b was used before it
    opened(recipe("c"))
    assert opened(recipe("a")) is a
    assert openings.names == ["a", "b", "c"]
    assert opened(recipe("b")) is not b
    assert openings.names == ["a", "b", "c", "b"]
    # now a and b are there, and c is not
    opened(recipe("a"))
    opened(recipe("c"))
    assert openings.names == ["a", "b", "c", "b", "c"]


@pytest.mark.parametrize("kept", [1, 2, KEPT])
def test_no_more_are_kept_than_it_says(openings: Openings, kept: int) -> None:
    gc.collect()
    gc.freeze()  # what was imported since the tests were collected
    opened = Opened(kept=kept)
    seen = []
    for number in range(5):
        seen.append(ref(opened(recipe(str(number)))))
        gc.collect()
        assert sum(model() is not None for model in seen) == min(kept, number + 1)


def test_an_error_leaves_nothing_behind_and_the_next_try_works(openings: Openings) -> None:
    opened = Opened(kept=1)
    there = opened(recipe("there"))

    def fail(name: str) -> None:
        raise ModelError("offline")

    openings.on_open = fail
    for _ in range(2):
        with pytest.raises(ModelError, match="offline"):
            opened(recipe("m"))
    assert opened(recipe("there")) is there  # nothing had to go for it
    openings.on_open = lambda name: None
    found = opened(recipe("m"))
    assert opened(recipe("m")) is found
    assert openings.names == ["there", "m", "m", "m"]


def test_those_who_want_what_is_open_do_not_wait(openings: Openings) -> None:
    opened, begun, go = Opened(), Event(), Event()
    there = opened(recipe("there"))

    def slow(name: str) -> None:
        begun.set()
        assert go.wait(LONG_S)

    openings.on_open = slow
    with ThreadPoolExecutor(2) as pool:
        slowly = pool.submit(opened, recipe("slow"))
        assert begun.wait(LONG_S)
        assert pool.submit(opened, recipe("there")).result(LONG_S / 2) is there
        assert not slowly.done()
        go.set()
        slowly.result(LONG_S)


def test_a_real_codec_and_its_sae(codec_folder: Path, sae_folder: Path) -> None:
    opened = Opened()
    what = recipe(str(codec_folder), str(sae_folder))
    steered = opened(what)
    assert opened(what) is steered and list(steered.saes) == ["latent"]
    with pytest.raises(ModelError):
        opened(recipe("nothing:there", str(sae_folder)))
    assert opened(what) is steered
