"""`far`, a device that is none: its tensors lie in plain memory, and an operation that meets tensors of two devices
fails, as on a GPU. So a machine without one can tell whether everything goes where the model is.

It is for a process of its own: torch knows one device of this kind, and knows it until the end.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_map_only
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

FAR = "far"
WHOLE = {torch.stft, torch.istft, torch.lstm, torch._VF.lstm, torch._VF.gru}
"""Run as one: on a CPU they are made of operations that other devices do not have, or that resize in place."""
MIXED = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
"""A GPU takes indices from the CPU too."""


done: Counter[str] = Counter()
"""How often each operation was done there."""


class FarTensor(Tensor):
    """What torch takes for a tensor on `far`; `near` holds its numbers."""

    near: Tensor

    @staticmethod
    def __new__(cls, near: Tensor) -> FarTensor:
        about = {"strides": near.stride(), "storage_offset": near.storage_offset(), "dtype": near.dtype}
        far = Tensor._make_wrapper_subclass(cls, near.size(), device=torch.device(FAR, 0), **about)
        far.near = near
        return far

    def __repr__(self, **options: Any) -> str:
        return f"far {self.near!r}"

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in WHOLE:
            check_together(str(func), (args, kwargs))
            return tree_map_only(Tensor, FarTensor, func(*nearer(args), **nearer(kwargs or {})))
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return operate(func, *args, **(kwargs or {}))


def products() -> int:
    """How many convolutions and matrix products were done there."""
    return sum(count for name, count in done.items() if "mm" in name or "conv" in name)


def nearer(values: Any) -> Any:
    return tree_map_only(FarTensor, lambda far: far.near, values)


def check_together(name: str, values: Any) -> None:
    """Numbers alone, tensors of no dimension, may come from the CPU."""
    tensors = [value for value in tree_flatten(values)[0] if isinstance(value, Tensor) and value.ndim]
    if name not in MIXED and len({type(one) is FarTensor for one in tensors}) > 1:
        shapes = ", ".join(f"{list(one.shape)} on {one.device}" for one in tensors)
        raise RuntimeError(f"{name}: tensors on two devices ({shapes})")


def operate(func: Any, *args: Any, **kwargs: Any) -> Any:
    """An operation of which an argument, or the result, is on `far`."""
    done[func._schema.name] += 1
    name, device = func._schema.name, kwargs.get("device")
    near_args, near_kwargs = nearer((args, kwargs))
    if device is not None:
        near_kwargs["device"] = torch.device("cpu")
    if name == "aten::_to_copy":
        device = device or args[0].device
        result = func(*near_args, **near_kwargs)
        return FarTensor(result) if torch.device(device).type == FAR else result
    if name == "aten::copy_":
        func(*near_args, **near_kwargs)
        return args[0]
    check_together(name, (args, kwargs))
    result = func(*near_args, **near_kwargs)
    # what is changed in place stays the tensor that it was
    known = {id(one.near): one for one in tree_flatten((args, kwargs))[0] if type(one) is FarTensor}
    return tree_map_only(Tensor, lambda near: known[id(near)] if id(near) in known else FarTensor(near), result)


def tensor(values: Any, *, device: Any = None, **options: Any) -> Tensor:
    """`torch.tensor`, which is written in C++ and knows no devices such as this."""
    made = plain_tensor(values, **options)
    return made if device is None else made.to(device)


plain_tensor = torch.tensor
_library = torch.library.Library("_", "IMPL")


class Backend(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


def set_up() -> None:
    _setup_privateuseone_for_python_backend(FAR, Backend())
    _library.fallback(operate, "PrivateUse1")
    torch.tensor = tensor
