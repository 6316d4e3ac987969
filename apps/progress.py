"""Progress bars on stderr, for people only: nothing is drawn where nobody looks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import track as rich_track

from apps.messages import is_quiet

Item = TypeVar("Item")


def bars() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=is_quiet() or not console.is_terminal)


def track(items: Sequence[Item], what: str) -> Iterable[Item]:
    """Iterate with a bar."""
    console = Console(stderr=True)
    hidden = is_quiet() or not console.is_terminal
    return rich_track(items, what, console=console, transient=True, disable=hidden)
