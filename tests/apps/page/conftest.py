"""Pages that are up for the tests of a module, and a browser to visit them."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.apps.page.small import USERS, Open, small_page
from tests.apps.page.visitor import Visitor


@pytest.fixture(scope="module")
def opened() -> Iterator[Callable[..., Open]]:
    """Opens small pages, which stay up until the end of the module's tests: `opened(users=None)`."""
    from apps.page.server import own_folder, running
    from apps.page.settings import Limits, Settings

    with ExitStack() as stack:

        def open_page(**options: Any) -> Open:
            folder = stack.enter_context(own_folder())
            settings = Settings(Limits(max_mb=0.1), folder=folder)
            return Open(stack.enter_context(running(small_page(), settings, **options)), folder)

        yield open_page


@pytest.fixture(scope="module")
def page(opened: Callable[..., Open]) -> Open:
    return opened()


@pytest.fixture(scope="module")
def locked(opened: Callable[..., Open]) -> Open:
    return opened(users=USERS)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A real browser, which lies on the machine: playwright does not fetch one.

    It has an event loop in the main thread, where tests of other modules run their own.
    """
    api = pytest.importorskip("playwright.sync_api", reason="extra dev")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None and not os.environ.get("CI"):
        pytest.skip("no Chromium on this machine (Debian's package chromium)")
    with api.sync_playwright() as playwright:
        # instead of a microphone, something that beeps
        devices = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", *devices])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Open]:
    """The whole page, as `steer demo` opens it; two may wait."""
    pytest.importorskip("gradio", reason="extra demo")
    from apps.page import shared
    from apps.page.build import page
    from apps.page.runs import Runs
    from apps.page.server import own_folder, running
    from apps.page.settings import Limits, Settings

    made: list[Runs] = []

    def noted(*options: Any) -> Runs:
        made.append(Runs(*options))
        return made[-1]

    with own_folder() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared, "Runs", noted)
        settings = Settings(Limits(max_mb=20, max_minutes=10), queue=2, folder=folder, private=True)
        with running(page(settings), settings) as address:
            yield Open(address, folder)
            # a process must not end while a thread computes
            while made[0]._line:
                time.sleep(0.1)


@pytest.fixture(scope="module")
def tabs(chromium: Any) -> Any:
    """A context whose tabs share what was loaded: the page knows users by their tabs."""
    return chromium.new_context()


@pytest.fixture
def visit(chromium: Any, tabs: Any, demo: Open) -> Iterator[Callable[..., Visitor]]:
    """Opens the page as another user; what a page must never do is looked for at the end."""
    visitors: list[Visitor] = []

    def come(**options: Any) -> Visitor:
        visitors.append(Visitor.come(chromium if options else tabs, demo, **options))
        return visitors[-1]

    yield come
    for visitor in visitors:
        visitor.leave()
        assert visitor.foreign == [] and visitor.complaints == []
