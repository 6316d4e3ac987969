"""When it is: which part of a recording the model gets at the moment, as far as somebody has said.

One record holds it all. `hooks.attach` (`at_time`), `hooks.padding` (`sound_until`) and `hooks.rows` (`rows_at`) say a
part of it each, for the length of a with-block in the present context.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from hooks.site import Site

Change = Callable[[Tensor], Tensor | None]
"""Takes an activation [B, T, D]; returns the new one, or None to leave it alone."""
Rows = Callable[[Site, Change, Tensor], Tensor | None]
"""Calls a change for each group of rows of the activation, and gives what the change as a whole gives."""


@dataclass(frozen=True)
class Moment:
    """`start_s`, the second at which what the model gets starts; `end_s`, where its sound ends; `carry`, what a model
    with a running state keeps from chunk to chunk; `rows`, where each row of the batch has a time of its own;
    `wholes`, the recordings (`hooks.whole.Whole`) that the rows of the batch are parts of, one for each row."""

    start_s: float | None = None
    end_s: float | None = None
    carry: dict[str, Any] | None = None
    rows: Rows | None = None
    wholes: tuple[Any, ...] | None = None


_now: ContextVar[Moment] = ContextVar("audiosteer_moment", default=Moment())  # noqa: B039 - it is frozen


def now() -> Moment:
    return _now.get()


@contextmanager
def saying(**parts: Any) -> Iterator[None]:
    """Say parts of a `Moment` for the length of a with-block; the others stay what they are."""
    previous = _now.set(replace(_now.get(), **parts))
    try:
        yield
    finally:
        _now.reset(previous)
