from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hooks.by_value import ByValue


@dataclass(frozen=True, eq=False)
class Pair(ByValue):
    name: str
    value: Tensor | float


def test_tensors_are_compared_by_their_numbers_dtype_and_shape() -> None:
    one = Pair("a", torch.tensor([1.0, 2.0]))
    assert one == Pair("a", torch.tensor([1.0, 2.0]))
    assert hash(one) == hash(Pair("a", torch.tensor([1.0, 2.0])))
    others = [torch.tensor([1.0, 3.0]), torch.tensor([1.0]), torch.tensor([1.0, 2.0]).double(), 1.0]
    assert all(one != Pair("a", other) for other in others)
    assert one != Pair("b", torch.tensor([1.0, 2.0]))
    assert one != "a"
    assert Pair("a", 1.0) == Pair("a", 1.0)
    assert Pair("a", np.ones(2)) == Pair("a", np.ones(2)) != Pair("a", np.zeros(2))  # type: ignore[arg-type]


def test_another_class_is_something_else() -> None:
    @dataclass(frozen=True, eq=False)
    class Other(Pair):
        pass

    assert Other("a", 1.0) != Pair("a", 1.0)


def test_it_is_found_in_lists_and_sets() -> None:
    pairs = [Pair("a", torch.ones(3)), Pair("b", torch.zeros(3))]
    assert Pair("b", torch.zeros(3)) in pairs
    assert len({*pairs, Pair("a", torch.ones(3))}) == 2
