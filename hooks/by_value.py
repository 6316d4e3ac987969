"""`ByValue`: `==` for dataclasses that hold tensors, where dataclass's own would ask a tensor whether it is true."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch import Tensor


class ByValue:
    """Base of `@dataclass(eq=False)` classes: equal are those of one class whose fields are equal.

    Tensors are by shape, dtype and numbers, wherever they lie; they are left out of the hash.
    """

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and all(map(same, values(self), values(other)))

    def __hash__(self) -> int:
        return hash((type(self), *(value for value in values(self) if not isinstance(value, Tensor | np.ndarray))))


def values(record: Any) -> list[Any]:
    return [getattr(record, field.name) for field in fields(record)]


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor | np.ndarray) and isinstance(b, Tensor | np.ndarray):
        one, other = torch.as_tensor(a).cpu(), torch.as_tensor(b).cpu()
        return one.dtype == other.dtype and torch.equal(one, other)
    return type(a) is type(b) and bool(a == b)
