"""The one place that registers torch hooks.

A hook acts only in the context (thread or task) that attached it, so that one shared model can run with different edits
at the same time (which hooks are alive is held in a ContextVar), or `everywhere` in the process. Removing the handle
leaves the module as it was.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any

from torch import nn

from hooks.site import Site, check_hookable
from hooks.timing import Change, now

_alive: ContextVar[frozenset[int]] = ContextVar("audiosteer_alive_hooks", default=frozenset())
_everywhere: set[int] = set()
_apart: ContextVar[bool] = ContextVar("audiosteer_apart", default=False)
_tokens = itertools.count()
_lock = threading.Lock()


class Handle:
    """Takes the hook away again: `handle.remove()`, or at the end of a with-block. Removing twice is harmless."""

    def __init__(self, torch_handle: Any, token: int) -> None:
        self._torch_handle, self._token = torch_handle, token

    def remove(self) -> None:
        with _lock:
            self._torch_handle.remove()
            _everywhere.discard(self._token)
        _alive.set(_alive.get() - {self._token})

    def __enter__(self) -> Handle:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()


def attach(model: nn.Module, site: Site, change: Change, *, everywhere: bool = False) -> Handle:
    """Call `change` with the activation [B, T, D] whenever `site` is passed in this context, or `everywhere` in the
    process: in every thread and task, also in those that start later.

    Raises:
        SiteError: no such module, or one that takes no hooks (TorchScript, compiled); in the forward pass, if the
            activation is not where the site says or the change has another shape.
    """
    module = site.find(model)
    check_hookable(model, site)
    token = next(_tokens)

    def apply(value: Any) -> Any:
        x_BTD, rows = site.read(value), now().rows
        new_BTD = change(x_BTD) if rows is None else rows(site, change, x_BTD)
        return None if new_BTD is None else site.write(value, new_BTD)

    # torch calls a hook that another thread has just removed without the kwargs it was registered for: *rest is shorter
    def on_output(module: nn.Module, args: Any, *rest: Any) -> Any:
        return apply(rest[-1]) if acts(token) else None

    def on_input(module: nn.Module, args: tuple[Any, ...], *rest: Any) -> Any:
        if not rest or not acts(token):
            return None
        (kwargs,) = rest
        by_name = isinstance(site.element, str) or not args
        value = apply(kwargs if by_name else args)
        if value is None:
            return None
        return (args, value) if by_name else (value, kwargs)

    on_output.token = on_input.token = token  # type: ignore[attr-defined]
    with _lock:
        if site.port == "output":
            torch_handle = module.register_forward_hook(on_output, with_kwargs=True)
        else:
            torch_handle = module.register_forward_pre_hook(on_input, with_kwargs=True)
        if everywhere:
            _everywhere.add(token)
    if not everywhere:
        _alive.set(_alive.get() | {token})
    return Handle(torch_handle, token)


def acts(token: int | None) -> bool:
    """Whether the hook acts in this context."""
    return token in _alive.get() or (token in _everywhere and not _apart.get())


@contextmanager
def unhooked() -> Iterator[None]:
    """Inside, no hook acts that was attached before, those of the whole process neither."""
    alive, apart = _alive.set(frozenset()), _apart.set(True)
    try:
        yield
    finally:
        _apart.reset(apart)
        _alive.reset(alive)


def attached(module: nn.Module) -> bool:
    """Whether something that acts in this context is attached to a module or to a part of it."""
    with _lock:
        return any(
            acts(getattr(hook, "token", None))
            for part in module.modules()
            for hook in (*part._forward_hooks.values(), *part._forward_pre_hooks.values())
        )
