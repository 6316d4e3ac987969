"""The page as a whole: its looks, its manners, and who may come in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("gradio", reason="extra demo")
pytest.importorskip("torchcrepe", reason="extra eval")

from apps.page.build import page
from apps.page.server import own_folder, running
from apps.page.settings import Settings
from tests.apps.page.small import Open
from tests.apps.page.visitor import Visitor

TABS = ("Edit sound", "Transcribe", "Features")
NAMELESS = """() => [...document.querySelectorAll('button, input, textarea, select, audio, img, [role=radio]')]
    .filter(one => one.checkVisibility() && one.type != 'file')
    .filter(one => !(one.ariaLabel || one.title || one.alt || one.innerText?.trim() || one.labels?.length
        || one.getAttribute('aria-labelledby') || one.placeholder))
    .map(one => one.outerHTML.slice(0, 200))"""


def edited(visitor: Visitor) -> None:
    visitor.page.locator(".sung-phrase").first.click()
    visitor.page.locator("#edit-sound").get_by_label("Clear").wait_for()
    visitor.set("loudness", 3)
    assert "Measured" in visitor.run("edit")
    visitor.page.locator("#edit-picture img").wait_for()


def test_everything_that_can_be_used_has_a_name_and_fits_a_narrow_screen(visit: Callable[..., Visitor]) -> None:
    visitor = visit()
    edited(visitor)
    for tab in TABS:
        visitor.tab(tab)
        assert visitor.page.evaluate(NAMELESS) == []
    visitor.page.set_viewport_size({"width": 390, "height": 844})
    for tab in TABS:
        visitor.tab(tab)
        assert visitor.page.evaluate("document.documentElement.scrollWidth") <= 390
    assert visitor.page.evaluate("document.documentElement.lang")
    assert visitor.page.title() == "AudioSteer"


def test_an_edit_by_keys_alone(visit: Callable[..., Visitor]) -> None:
    visitor = visit()
    keys = visitor.page.keyboard
    visitor.page.locator(".sung-phrase").first.focus()
    keys.press("Enter")
    visitor.page.locator("#edit-sound").get_by_label("Clear").wait_for()
    visitor.page.get_by_role("slider", name="Loudness").focus()
    for _ in range(4):
        keys.press("ArrowRight")
    before = visitor.text("edit-status")
    for _ in range(60):
        keys.press("Tab")
        if visitor.page.evaluate("document.activeElement.id") == "edit-run":
            break
    keys.press("Enter")
    visitor.before = before
    assert "loudness +" in visitor.told("edit")
    assert "+2.00 dB" in visitor.text("edit-measured")


@pytest.mark.parametrize(("scheme", "bright"), [("light", True), ("dark", False)])
def test_light_and_dark_as_the_browser_asks(visit: Callable[..., Visitor], scheme: str, bright: bool) -> None:
    visitor = visit(color_scheme=scheme)
    color = visitor.page.evaluate("getComputedStyle(document.body).backgroundColor")
    levels = [int(number) for number in color.removeprefix("rgb(").removesuffix(")").split(",")[:3]]
    assert (sum(levels) > 3 * 128) == bright


def test_with_users_nobody_else_sees_anything(chromium: Any) -> None:
    with own_folder() as folder:
        settings = Settings(folder=folder)
        with running(page(settings), settings, users={"ann": "secret"}) as address:
            stranger = chromium.new_context()
            answer = stranger.request.get(address)
            assert answer.status == 401 and "gradio" not in answer.text()
            stranger.close()
            known = {"username": "ann", "password": "secret"}
            visitor = Visitor.come(chromium, Open(address, folder), http_credentials=known)
            edited(visitor)
            visitor.leave()


def test_a_page_for_others_opens_only_what_it_offers(chromium: Any) -> None:
    with own_folder() as folder:
        settings = Settings(folder=folder, models=("encodec:24khz=me/sae",))
        with running(page(settings), settings) as address:
            visitor = Visitor.come(chromium, Open(address, folder))
            field = visitor.page.locator("#edit-model input")
            field.fill("/etc")
            field.press("Tab")
            assert field.input_value() == "starter:codec"
            visitor.leave()
