"""The control of a steering by features: other features, drawn at random, that move the activation as far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from evaluation.separation import Separation
from evaluation.steering_search import Steering
from steer.decoding import moved
from steer.steered import SteeredModel


def random_like(
    steering: Steering, steered: SteeredModel, separations: Mapping[str, Separation], rng: np.random.Generator
) -> Steering | None:
    """As many features at the same sites, drawn from those that fire and are not edited, with the same amounts in
    another order, stretched at each site until the activation moves as far (`reach`).

    Where fewer others fire all of them are taken; None where there is none at any site.
    """
    vectors = {}
    for site, vector_F in steering.vectors.items():
        live = separations[site].live
        others = live[vector_F[live] == 0].numpy()
        values = vector_F[vector_F != 0]
        count = min(len(values), len(others))
        if not count:
            continue
        drawn_F = torch.zeros_like(vector_F)
        drawn_F[rng.choice(others, count, replace=False)] = values[rng.permutation(len(values))[:count]]
        far, near = (reach(steering.kind, steered, site, v_F, separations[site]) for v_F in (vector_F, drawn_F))
        vectors[site] = drawn_F * (far / near.clamp(min=1e-12))
    return replace(steering, vectors=vectors) if vectors else None


@torch.no_grad()
def reach(kind: str, steered: SteeredModel, site: str, vector_F: Tensor, separation: Separation) -> Tensor:
    """How far an edit of strength 1 moves the activation: the length of a shift, which is the same everywhere, or the
    root mean square, over the training clips, of the length that the change of a clip's mean features has."""
    changes_NF = vector_F[None] if kind == "shift" else separation.features_NF * vector_F
    changes_NF = changes_NF.to(steered.model.device)
    lengths_N = moved(steered.saes[site], changes_NF, torch.zeros_like(changes_NF)).norm(dim=-1)
    return lengths_N.square().mean().sqrt().cpu()
