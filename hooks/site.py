"""`Site`: a named place in a model whose activation can be read and written as [batch, frames, width]."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from hooks.errors import SiteError

Layout = Literal["BTD", "BDT"]


@dataclass(frozen=True)
class Site:
    """Where an activation is, and how it lies there.

    `module` is the module path (`encoder.layers.3`; "" is the model itself). `layout` says whether the module holds
    [batch, frames, width] or [batch, width, frames]. `port` is "output" or "input", and `element` picks one of several
    tensors: an index into a tuple or the positional arguments, a field of a ModelOutput or a keyword argument; None
    means the first tensor. `width` and `frame_rate` (Hz) are None where they are not known beforehand.
    `chunk_s` is the step in seconds between calls where the model cuts its input into chunks itself.
    """

    name: str
    module: str
    layout: Layout = "BTD"
    port: Literal["output", "input"] = "output"
    element: int | str | None = None
    width: int | None = None
    frame_rate: float | None = None
    chunk_s: float | None = None

    @classmethod
    def of(cls, model: nn.Module, path: str, name: str | None = None, **fields: Any) -> Site:
        """A site at any module of any model.

        Raises:
            SiteError: the model has no module at `path`.
        """
        site = cls(name or path or "model", path, **fields)
        site.find(model)
        return site

    def find(self, model: nn.Module) -> nn.Module:
        try:
            return model.get_submodule(self.module)
        except AttributeError as error:
            near = [path for path, _ in model.named_modules() if path.endswith(self.module.rsplit(".", 1)[-1])][:4]
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise SiteError(
                f"site {self.name!r}: {type(model).__name__} has no module {self.module!r}{hint}"
            ) from error

    def measured(self, x_BTD: Tensor) -> Site:
        """This site with the width that was seen there.

        Raises:
            SiteError: another width was declared.
        """
        if self.width not in (None, x_BTD.shape[2]):
            raise SiteError(
                f"site {self.name!r}: declared {self.width} wide, but its activation is {x_BTD.shape[2]} wide"
            )
        return replace(self, width=x_BTD.shape[2])

    # --- between what a module passes on and [B, T, D] ---

    def read(self, value: Any) -> Tensor:
        """[B, T, D] view of the activation inside `value` (a tensor, tuple, list, dict or ModelOutput)."""
        tensor = self._pick(value)
        if tensor.ndim != 3:
            raise SiteError(f"site {self.name!r}: expected a tensor of 3 axes, found {list(tensor.shape)}")
        return tensor.transpose(1, 2) if self.layout == "BDT" else tensor

    def write(self, value: Any, x_BTD: Tensor) -> Any:
        """A copy of `value`, of the same type, with the activation replaced (in its own dtype)."""
        old = self._pick(value)
        new = (x_BTD.transpose(1, 2) if self.layout == "BDT" else x_BTD).to(old.dtype)
        if new.shape != old.shape:
            raise SiteError(
                f"site {self.name!r}: the change has shape {list(new.shape)}, the activation {list(old.shape)}"
            )
        if old.is_contiguous():
            # later modules, and noise drawn like this tensor, may depend on how it lies in memory
            new = new.contiguous()
        if isinstance(value, Tensor):
            return new
        key = self._key(value)
        if isinstance(value, tuple):
            items: list[Any] = list(value)
            items[key] = new
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
        changed = copy.copy(value)
        changed[key] = new
        return changed

    def _key(self, value: Any) -> Any:
        named = hasattr(value, "items")
        if self.element is not None:
            return list(value)[self.element] if named and isinstance(self.element, int) else self.element
        pairs = value.items() if named else enumerate(value)
        for key, item in pairs:
            if isinstance(item, Tensor) and item.is_floating_point():
                return key
        raise SiteError(f"site {self.name!r}: there is no tensor in the {self.port} of module {self.module!r}")

    def _pick(self, value: Any) -> Tensor:
        if isinstance(value, Tensor) and self.element in (None, 0):
            return value
        # a lone tensor has no further elements: indexing it would take a row of the batch
        items = () if isinstance(value, Tensor) else value
        try:
            tensor = items[self._key(items)]
        except (KeyError, IndexError, TypeError) as error:
            what = f"the {self.port} of {self.module!r}, a {type(value).__name__},"
            raise SiteError(f"site {self.name!r}: {what} has no element {self.element!r}") from error
        if not isinstance(tensor, Tensor):
            raise SiteError(f"site {self.name!r}: element {self.element!r} of {self.module!r} is not a tensor")
        return tensor


def names_of(sites: str | Sequence[str]) -> list[str]:
    """The names of some sites, or of the only one."""
    return [sites] if isinstance(sites, str) else list(sites)


def check_hookable(model: nn.Module, site: Site) -> None:
    """Raises SiteError if torch ignores or forbids hooks on the site's module, or on one that it lies in."""
    path = site.module.split(".") if site.module else []
    for depth in range(len(path) + 1):
        module = model.get_submodule(".".join(path[:depth]))
        where = f"site {site.name!r}: {'.'.join(path[:depth]) or type(module).__name__}"
        if isinstance(module, torch.jit.ScriptModule):
            raise SiteError(f"{where} is TorchScript, which takes no hooks")
        if type(module).__name__ == "OptimizedModule" or getattr(module, "_compiled_call_impl", None) is not None:
            raise SiteError(f"{where} is compiled, and hooks added now never run; wrap the model before torch.compile")
