"""Gradients on request: what runs a model keeps none, unless it is asked to with `grad=True`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

_kept: ContextVar[bool] = ContextVar("audiosteer_gradients", default=False)


@contextmanager
def gradients(wanted: bool = True) -> Iterator[None]:
    """Inside, gradients are kept if they are `wanted` here or were in a block around it; otherwise none are."""
    before = _kept.set(wanted or _kept.get())
    try:
        with torch.set_grad_enabled(_kept.get()):
            yield
    finally:
        _kept.reset(before)


def gradients_kept() -> bool:
    """Whether the present call was asked to keep gradients."""
    return _kept.get()
