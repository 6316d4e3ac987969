"""Small pages that are up for the tests of a module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.apps.page.small import USERS, Open, small_page


@pytest.fixture(scope="module")
def opened() -> Iterator[Callable[..., Open]]:
    """Opens small pages, which stay up until the end of the module's tests: `opened(users=None)`."""
    from apps.page.limits import Limits
    from apps.page.server import own_folder, running
    from apps.page.settings import Settings

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
