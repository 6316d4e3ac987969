"""Random features on a recogniser of which all is known (`listener`)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evaluation.random_features import random_like, reach
from evaluation.separation import Separation
from evaluation.steering_search import Steering
from hooks import Transcriber
from steer import SAE, SteeredModel

WIDTH = 12
FIRING = list(range(10))
"""Of the dictionary's twelve features two never fire."""


@pytest.fixture
def steered(listener: Transcriber) -> SteeredModel:
    """Each feature moves the activation by a length of its own."""
    sae = SAE(4, WIDTH, "relu")
    with torch.no_grad():
        sae.W_dec.mul_(torch.arange(1.0, WIDTH + 1)[:, None])
    return SteeredModel(listener, {"ear.0": sae}, check=False)


@pytest.fixture
def found() -> dict[str, Separation]:
    features_NF = torch.rand(6, WIDTH, generator=torch.Generator().manual_seed(0))
    features_NF[:, 10:] = 0
    nothing = torch.zeros(WIDTH)
    return {"ear.0": Separation(torch.tensor(FIRING), nothing, nothing, torch.zeros(4), features_NF)}


def steering(kind: str) -> Steering:
    vector_F = torch.zeros(WIDTH)
    vector_F[[1, 4, 7]] = torch.tensor([1.0, 1.0, 1.0]) if kind == "scale" else torch.tensor([0.5, -0.25, 2.0])
    return Steering(kind, {"ear.0": vector_F}, 2.0)


@pytest.mark.parametrize("kind", ["shift", "scale", "gain"])
def test_they_are_others_as_many_and_move_as_far(
    steered: SteeredModel, found: dict[str, Separation], kind: str
) -> None:
    edited, rng, seen = steering(kind), np.random.default_rng(0), set()
    far = reach(kind, steered, "ear.0", edited.vectors["ear.0"], found["ear.0"])
    for _ in range(40):
        drawn = random_like(edited, steered, found, rng)
        assert drawn is not None
        assert (drawn.kind, drawn.features, drawn.strength) == (kind, 3, 2.0)
        features = drawn.vectors["ear.0"].nonzero()[:, 0].tolist()
        assert not {1, 4, 7, 10, 11} & set(features)  # neither edited nor silent
        seen |= set(features)
        near = reach(kind, steered, "ear.0", drawn.vectors["ear.0"], found["ear.0"])
        assert float(near) == pytest.approx(float(far), rel=1e-4)
    assert seen == {0, 2, 3, 5, 6, 8, 9}


def test_reach_by_hand(steered: SteeredModel, found: dict[str, Separation]) -> None:
    sae, one = steered.saes["ear.0"], found["ear.0"]
    vector_F = steering("gain").vectors["ear.0"]
    W_dec = sae.W_dec.detach()  # type: ignore[attr-defined]
    assert float(reach("shift", steered, "ear.0", vector_F, one)) == pytest.approx(float((vector_F @ W_dec).norm()))
    lengths = [(features_F * vector_F @ W_dec).norm() ** 2 for features_F in one.features_NF]
    expected = float(torch.stack(lengths).mean().sqrt())
    assert float(reach("gain", steered, "ear.0", vector_F, one)) == pytest.approx(expected, rel=1e-5)


def test_where_few_others_fire_all_are_taken(steered: SteeredModel, found: dict[str, Separation]) -> None:
    few = {"ear.0": Separation(torch.tensor([1, 3, 4, 7]), *(getattr(found["ear.0"], name) for name in FIELDS))}
    drawn = random_like(steering("scale"), steered, few, np.random.default_rng(0))
    assert drawn is not None and drawn.vectors["ear.0"].nonzero()[:, 0].tolist() == [3]
    none = {"ear.0": Separation(torch.tensor([1, 4, 7]), *(getattr(found["ear.0"], name) for name in FIELDS))}
    assert random_like(steering("scale"), steered, none, np.random.default_rng(0)) is None


FIELDS = ("auroc_F", "difference_F", "direction_D", "features_NF")
