"""The tab "Features" in a real browser, and what it needs of an atlas."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="extra demo")
pytest.importorskip("torchcrepe", reason="extra eval")

from apps.page.build import page
from apps.page.feature_run import Excerpt
from apps.page.features_tab import clips_html, frame_of, recipe_of
from apps.page.server import own_folder, running
from apps.page.settings import Settings
from evaluation.atlas import Atlas
from tests.apps.page.small import Open
from tests.apps.page.visitor import Visitor


def show(visitor: Visitor, feature: int, site: str = "latent") -> str:
    """Choose a feature by its number; what is said of it."""
    visitor.set("feature", feature)
    visitor.page.click("#feature-show")
    visitor.page.wait_for_selector(f"#feature-picture img[alt^='Feature {feature} at {site} ']")
    return visitor.text("feature-about")


def test_find_a_feature_and_try_it(visit: Callable[..., Visitor]) -> None:
    visitor = visit()
    visitor.tab("Features")
    visitor.set("features-query", "rain")
    visitor.page.locator("#features-table [data-testid=cell-0-4]", has_text="label:rain").wait_for()
    first = visitor.page.locator("#features-table [data-testid=cell-0-0]")
    feature = int(first.inner_text())
    # a row that is chosen is shown
    first.click()
    visitor.page.wait_for_selector(f"#feature-picture img[alt^='Feature {feature} at latent ']")
    assert f"Feature {feature} fires" in visitor.text("feature-about")
    assert "the recordings are not here" in visitor.text("feature-clips")

    visitor.page.click("#try-double")
    visitor.page.wait_for_selector("#edit-run:visible")
    assert visitor.page.locator("#edit-lines textarea").input_value() == f"scale {feature} = 2"
    # the sound came along
    assert "Measured" in visitor.run("edit")


def test_features_of_a_recogniser_are_tried_there_and_others_only_shown(visit: Callable[..., Visitor]) -> None:
    visitor = visit()
    visitor.tab("Features")
    choose(visitor, "starter:asr/encoder.2")
    show(visitor, 12, "encoder.2")
    visitor.page.click("#try-off")
    visitor.page.wait_for_selector("#transcribe-run:visible")
    assert visitor.page.locator("#transcribe-lines textarea").input_value() == "encoder.2: ablate 12"
    assert "encoder.2" in visitor.run("transcribe")

    visitor.tab("Features")
    choose(visitor, "starter:ssl/encoder.1")
    show(visitor, 12, "encoder.1")
    visitor.page.click("#try-off")
    visitor.page.get_by_text("gives neither sound nor words").wait_for()
    visitor.set("feature", 192)
    visitor.page.click("#feature-show")
    visitor.page.get_by_text("there is no feature 192").wait_for()


def test_what_fires_in_a_sound(visit: Callable[..., Visitor]) -> None:
    visitor = visit()
    visitor.tab("Features")
    visitor.page.click("#features-strongest")
    visitor.page.get_by_text("features fire most here").wait_for()
    assert "highest at (s)" in visitor.text("features-table")


def choose(visitor: Visitor, sae: str) -> None:
    field = visitor.page.locator("#features-sae input")
    field.click()
    visitor.page.get_by_role("option", name=sae).click()
    field.press("Tab")


@pytest.fixture
def with_recordings(recordings: Path) -> Iterator[Open]:
    with own_folder() as folder:
        settings = Settings(folder=folder, audio=recordings)
        with running(page(settings), settings) as address:
            yield Open(address, folder)


def test_top_clips_are_played_where_the_recordings_are(chromium: Any, with_recordings: Open) -> None:
    visitor = Visitor.come(chromium, with_recordings)
    visitor.tab("Features")
    show(visitor, 405)
    players = visitor.page.locator("#feature-clips audio")
    assert players.count() == 5
    played = players.first.evaluate("async player => { await player.play(); return player.duration }")
    assert played == pytest.approx(2.0, abs=0.2)
    before = visitor.page.locator("#feature-picture img").get_attribute("src")
    visitor.page.click("#feature-take")
    visitor.page.wait_for_function(
        "before => document.querySelector('#feature-picture img')?.src != before", arg=before
    )
    assert "It is highest at" in visitor.page.locator("#feature-picture img").get_attribute("alt")
    visitor.leave()
    assert visitor.foreign == [] and visitor.complaints == []


def test_names_of_clips_are_text() -> None:
    html = clips_html(
        [Excerpt("<img src=x>.wav", 1.0, 2.0, missing="gone"), Excerpt("a", None, 1.0, 0.0, Path('/b"c'))]
    )
    assert "<img" not in html and "&lt;img src=x&gt;.wav at 1.00 s" in html
    assert 'src="/gradio_api/file=/b&quot;c"' in html


def test_tables() -> None:
    rows = [{"feature": 3, "tells": "a\nb"}, {"feature": 4, "tells": ""}]
    assert frame_of(rows) == {"headers": ["feature", "tells"], "value": [[3, "a; b"], [4, ""]]}
    assert frame_of([]) == {"headers": ["feature"], "value": []}


def test_a_starter_is_opened_with_all_its_saes() -> None:
    assert list(recipe_of(Atlas.load("starter:asr/encoder.2")).saes) == [f"encoder.{layer}" for layer in range(4)]
    assert list(recipe_of(Atlas.load("starter:codec/latent")).saes) == ["latent"]
