"""What a training minimises: the error of the reconstruction, and what else. Any activation goes with any objective.

An objective is a function `(run: Pass, weight: float) -> loss`, `weight` being `TrainConfig.sparsity`: `OBJECTIVES` has
those that have names, and a training takes any other too. Its loss has to be a mean over the vectors, so that several
processes can share a batch; `run.own` belongs to it, which is what the activation asks for itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from hooks.extensions import Registry
from steer.errors import TrainingError
from steer.passes import Pass

Objective = Callable[[Pass, float], Tensor]


def plain(run: Pass, weight: float) -> Tensor:
    """The error alone: k keeps features few."""
    return run.error + run.own


def l1(run: Pass, weight: float) -> Tensor:
    """error + weight * sum of the features (`latent-sae-control.txt`, eq. 1)."""
    return run.error + (weight * run.l1 + run.own)


def l0(run: Pass, weight: float) -> Tensor:
    """error + weight * number of active features (arXiv 2407.14435, eq. 9); of use where that has a gradient."""
    return run.error + (weight * run.l0 + run.own)


@dataclass(frozen=True)
class Matryoshka:
    """The mean error of nested reconstructions, from the first features alone and from ever more of them
    (arXiv 2503.17547): early features become general ones, late ones special. Besides, the activation's usual penalty.

    `shares` of the dictionary, rising; the whole of it is always the last.
    """

    shares: tuple[float, ...] = (1 / 16, 1 / 8, 1 / 4, 1 / 2)

    def __post_init__(self) -> None:
        if (
            not self.shares
            or list(self.shares) != sorted(set(self.shares))
            or not 0 < min(self.shares) <= max(self.shares) < 1
        ):
            raise TrainingError(f"shares of a dictionary rise from above 0 to below 1, not {self.shares}")

    def __call__(self, run: Pass, weight: float) -> Tensor:
        ends = sorted({max(1, round(share * run.sae.d_sae)) for share in self.shares})
        errors = [*map(run.error_of, run.nested(ends)), run.error]
        return torch.stack(errors).mean() + (weight * run.penalty + run.own)


OBJECTIVES: Registry[Objective] = Registry(
    "objective", TrainingError, {"plain": plain, "l1": l1, "l0": l0, "matryoshka": Matryoshka()}
)


def objective_of(objective: str | Objective) -> Objective:
    """That of a name, "" being plain, or the function itself; raises TrainingError where none is called so."""
    return OBJECTIVES[objective or "plain"] if isinstance(objective, str) else objective


def name_of(objective: str | Objective) -> str:
    """What stands for an objective in files."""
    return objective if isinstance(objective, str) else getattr(objective, "__qualname__", None) or repr(objective)
