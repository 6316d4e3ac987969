"""How far apart two right results may be: absolute tolerances from what rounds, not from what one processor gave."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn

FACTOR = 4.0


def of_sums(terms: int, level: float = 1.0, dtype: torch.dtype = torch.float32, layers: int = 1) -> float:
    """The largest difference to expect between two orders of the same sums, such as those of two kernels.

    `terms` products are added up, each about as large as `level` (a root mean square), of either sign. A partial sum of
    k of them is about sqrt(k) * level, and each addition rounds it by eps / 2 at most: independent errors that add up
    to terms * eps / 3 in the whole sum, and to half as much again in the difference of two. The largest of some
    hundred thousand numbers lies 4 to 5 standard deviations out: together less than `FACTOR` * eps * terms * level.
    Sums in blocks or in vectors, as kernels form them, round less. With `layers` sums behind each other, each of about
    the level of the one before, their errors are added.

    A sum at the wrong place, a missing row or TF32 (eps 1e-3) is off by a share of `level` and more, so that it is
    still found: for that `terms` has to stay below some ten thousand.
    """
    return FACTOR * torch.finfo(dtype).eps * terms * level * layers


def of_rounding(level: float, steps: int = 1, dtype: torch.dtype = torch.float32) -> float:
    """After `steps` operations each rounded once, of numbers up to `level`: two ways to write the same expression."""
    return torch.finfo(dtype).eps * level * steps


def of_network(module: nn.Module, run: Callable[[nn.Module, Tensor], Tensor], x: Tensor) -> float:
    """The largest difference to expect between two float32 runs of a network whose kernels sum in other orders.

    How far errors grow in it no formula says: `FACTOR` times the distance of `run(module, x)` to a run in float64 of a
    copy, on this processor. The factor is for other sounds and other processors, whose float32 runs lie as far from
    that of float64 on another side.
    """
    with torch.no_grad():
        exact = run(deepcopy(module).double(), x.double())
        return FACTOR * float((run(module, x.float()).double() - exact).abs().max())
