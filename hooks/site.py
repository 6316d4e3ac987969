"""`Site`: a named place in a model whose activation can be read and written as [batch, frames, width]."""

from __future__ import annotations

import copy
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
    tensors: an index into a tuple or into the positional arguments, a field of a ModelOutput or a keyword argument; with
    None the first tensor is meant. `width` and `frame_rate` (Hz) are None where they are not known beforehand.
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
            raise SiteError(f"site {self.name!r}: {type(model).__name__} has no module {self.module!r}{hint}") from error

    def measured(self, x_BTD: Tensor) -> Site:
        """This site with the width that was seen there.

        Raises:
            SiteError: another width was declared.
        """
        if self.width not in (None, x_BTD.shape[2]):
            raise SiteError(f"site {self.name!r}: declared {self.width} wide, but its activation is {x_BTD.shape[2]} wide")
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
            raise SiteError(f"site {self.name!r}: the change has shape {list(new.shape)}, the activation {list(old.shape)}")
        if isinstance(value, Tensor):
            return new
        key = self._key(value)
        if isinstance(value, tuple):
            items = [new if index == key else item for index, item in enumerate(value)]
            return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
        changed = copy.copy(value)
        changed[key] = new
        return changed

    def _key(self, value: Any) -> int | str:
        if self.element is not None:
            return self.element
        pairs = value.items() if hasattr(value, "items") else enumerate(value)
        for key, item in pairs:
            if isinstance(item, Tensor) and item.is_floating_point():
                return key
        raise SiteError(f"site {self.name!r}: there is no tensor in the {self.port} of module {self.module!r}")

    def _pick(self, value: Any) -> Tensor:
        if isinstance(value, Tensor) and self.element in (None, 0):
            return value
        try:
            tensor = value[self._key(value)]
        except (KeyError, IndexError, TypeError) as error:
            raise SiteError(f"site {self.name!r}: the {self.port} of {self.module!r} has no element {self.element!r}") from error
        if not isinstance(tensor, Tensor):
            raise SiteError(f"site {self.name!r}: element {self.element!r} of {self.module!r} is no tensor")
        return tensor


def check_hookable(module: nn.Module, site: Site) -> None:
    """Raises SiteError for modules on which torch ignores or forbids hooks."""
    if isinstance(module, torch.jit.ScriptModule):
        raise SiteError(f"site {site.name!r}: {site.module!r} is TorchScript, which takes no hooks")
    if type(module).__name__ == "OptimizedModule" or getattr(module, "_compiled_call_impl", None) is not None:
        raise SiteError(f"site {site.name!r}: {site.module!r} is compiled; hooks added now never run: wrap the model before torch.compile")
