from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("gradio", reason="extra demo")

from apps.opened import Opened
from apps.page.choice import model_values, recipe_from, span_from
from apps.page.runs import Runs
from apps.page.settings import Settings
from apps.page.shared import Shared
from hooks import ModelError
from steer.errors import RecipeError, SAEError
from steer.recipe import DEFAULT_MODEL, Recipe
from steer.sae import SAE, SAEInfo


def shared(private: bool = False, *models: str) -> Shared:
    settings = Settings(models=models, private=private)
    return Shared(settings, Opened(), Runs(Path()), {})


@pytest.fixture
def sae(tmp_path: Path) -> str:
    return str(SAE(4, 8, "relu", info=SAEInfo(site="ear.0")).save(tmp_path / "sae"))


@pytest.fixture
def other(tmp_path: Path) -> str:
    return str(SAE(4, 8, "relu", info=SAEInfo(site="ear.1")).save(tmp_path / "other"))


@pytest.mark.parametrize("private", [True, False])
def test_starters_and_offered_models_are_taken_everywhere(private: bool, sae: str, other: str) -> None:
    place = shared(private, f"hub:one={sae}", f"listener={sae}, {other}")
    assert model_values(DEFAULT_MODEL, place) == {"model": DEFAULT_MODEL}
    assert model_values(f"  hub:one={sae} ", place) == {"model": "hub:one", "saes": {"ear.0": sae}}
    assert model_values(f"listener={sae}, {other}", place) == {
        "model": "listener",
        "saes": {"ear.0": sae, "ear.1": other},
    }


@pytest.mark.parametrize(
    "choice", ["listener", "/etc", "../secret", "starter:codec=/etc/passwd", "starter:codec/latent"]
)
def test_a_page_for_others_opens_nothing_else(choice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(source: str) -> Any:
        pytest.fail(f"{source} was read")

    monkeypatch.setattr("apps.page.choice.load_sae", load)
    with pytest.raises(ModelError, match="is not offered here; there are starter:") as error:
        model_values(choice, shared(False, "hub:one"))
    assert str(error.value).startswith(choice) and "hub:one" in str(error.value)


def test_a_private_page_opens_what_is_named(sae: str, other: str) -> None:
    place = shared(True)
    with pytest.raises(ModelError, match="my/model needs an SAE: name it behind the model, as my/model=SAE"):
        model_values("my/model", place)
    assert model_values(f"my/model={sae}", place) == {"model": "my/model", "saes": {"ear.0": sae}}
    spaced = model_values(f"my/model = {sae} ,{other},", place)
    assert spaced == {"model": "my/model", "saes": {"ear.0": sae, "ear.1": other}}
    with pytest.raises(SAEError):
        model_values(f"my/model={sae}/none", place)


def test_the_recipe_of_a_private_page_can_be_taken_elsewhere(
    sae: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.pt").touch()
    made = recipe_from("whisper:model.pt=sae", shared(True))
    (tmp_path / "run").mkdir()
    text = made.save(tmp_path / "run" / "recipe.yaml").read_text()
    (tmp_path / "away" / "deep").mkdir(parents=True)
    moved = tmp_path / "away" / "deep" / "recipe.yaml"
    moved.write_text(text)
    monkeypatch.chdir("/")
    taken = Recipe.load(moved)
    assert (taken.model, taken.saes) == (f"whisper:{tmp_path}/model.pt", {"ear.0": sae})


def test_an_sae_that_does_not_say_where_it_goes(tmp_path: Path) -> None:
    source = str(SAE(4, 8, "relu").save(tmp_path / "sae"))
    with pytest.raises(RecipeError, match="does not say at which site it belongs"):
        model_values(f"my/model={source}", shared(True))


@pytest.mark.parametrize("nothing", [None, "", "  "])
def test_nothing_was_chosen(nothing: str | None) -> None:
    with pytest.raises(ModelError, match="^choose a model$"):
        model_values(nothing, shared(True))


def test_a_recipe_of_all_that_was_chosen(sae: str) -> None:
    made = recipe_from(
        f"listener={sae}",
        shared(True),
        {"loudness": 6.0, "pitch": 0, "brightness": -20},
        "ablate 3\nclamp 5 = 2 during 1-2",
        [(0.5, 1.5)],
        "keep",
    )
    assert made == Recipe.build(
        {
            "model": "listener",
            "saes": {"ear.0": sae},
            "goals": {"loudness": "+6dB", "brightness": "-20%"},
            "edits": [{"ablate": [3]}, {"clamp": {5: 2}, "during": [[1, 2]]}],
            "during": [[0.5, 1.5]],
            "residual": "keep",
        }
    )


def test_what_was_left_as_it_is_stands_in_no_recipe() -> None:
    made = recipe_from(DEFAULT_MODEL, shared(), {"loudness": 0, "pitch": 0.0, "brightness": -0.0}, "\n# nothing\n")
    assert made == Recipe.build({}) and made.wanted == {}


def test_what_cannot_be_is_told_as_of_the_page() -> None:
    for lines, spans, says in (
        ("ablate x", [], "line 1: "),
        ("clamp 5 = nan", [], "the page: edits"),
        ("clamp 5 = 1 during 2-1", [], "the page: edits"),
        ("", [(2.0, 1.0)], "the page: during"),
    ):
        with pytest.raises(RecipeError, match=f"^{says}"):
            recipe_from(DEFAULT_MODEL, shared(), lines=lines, spans=spans)


# --- spans ---

seconds = st.floats(0.01, 600)


@given(seconds)
def test_all_of_the_sound_is_no_span(length: float) -> None:
    for start in (0, 0.0, None):
        for end in (0, 0.0, None):
            assert span_from(start, end, length) == []


@given(seconds, st.floats(0, 1, exclude_max=True), st.floats(0.001, 700))
def test_a_span_is_what_was_asked_for(length: float, share: float, lasts: float) -> None:
    start = share * length
    assert span_from(start, start + lasts, length) == [(start, start + lasts)]
    if start:
        # to the end of the sound
        assert span_from(start, 0, length) == span_from(start, None, length) == [(start, length)]


@given(seconds, seconds)
def test_a_span_begins_within_the_sound(length: float, behind: float) -> None:
    for end in (0, length, length + 2 * behind):
        with pytest.raises(RecipeError, match=f"^the sound lasts {length:.2f} s, the edit would begin at"):
            span_from(length + behind, end, length)


@pytest.mark.parametrize(("start", "end"), [(1.0, 1.0), (1.0, 0.5), (-1.0, 1.0), (-1.0, 0.0), (0.0, -1.0), (1.0, -2.0)])
def test_a_span_goes_forwards_from_zero(start: float, end: float) -> None:
    with pytest.raises(RecipeError, match=f"^from {start:g} s to .* s is not a time span$"):
        span_from(start, end, 2.0)


@pytest.mark.parametrize(("start", "end"), [(float("nan"), 1.0), (0.5, float("nan"))])
def test_no_number_is_no_span(start: float, end: float) -> None:
    with pytest.raises(RecipeError):
        span_from(start, end, 2.0)
