from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from hooks.families.wavtokenizer import WavTokenizerCodec
from hooks.random_numbers import generators, seeded
from steer import SAE, SteeredModel
from steer.stream import measured_lookahead_s
from steer.trainee import TrainConfig, Trainee
from tests.conftest import Listener

CUDA = torch.device("cuda", 1)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> torch.Generator:
    """The generator of a GPU that is not there."""
    own = torch.Generator().manual_seed(9)
    backend = SimpleNamespace(init=lambda: None, current_device=lambda: 1, default_generators=(None, own))
    monkeypatch.setattr(torch, "get_device_module", lambda device: backend)
    return own


def drawn(*sources: torch.Generator) -> list[Tensor]:
    return [torch.rand(3, generator=source) for source in sources]


def test_a_seed_holds_inside_alone_and_on_the_device_too(gpu: torch.Generator) -> None:
    both = generators(CUDA)
    assert both == generators(torch.device("cuda")) == [torch.default_generator, gpu]
    before = [one.get_state() for one in both]
    for _ in range(2):
        with seeded(3, CUDA):
            inside = drawn(*both)
            assert torch.equal(inside[0], torch.rand(3, generator=torch.Generator().manual_seed(3)))
            assert torch.equal(*inside)
        with pytest.raises(ValueError, match="boom"), seeded(3, CUDA):
            drawn(*both)
            raise ValueError("boom")
    assert all(torch.equal(one.get_state(), state) for one, state in zip(both, before, strict=True))


def test_numbers_go_on_where_they_were_left(gpu: torch.Generator) -> None:
    both, left = generators(CUDA), []
    with seeded(3, CUDA):
        at_once = [drawn(*both), drawn(*both)]
    for expected in at_once:
        with seeded(3, CUDA, left):
            assert all(map(torch.equal, drawn(*both), expected))
        drawn(*both)


def test_other_devices_are_left_alone(codec: WavTokenizerCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[Any] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    torch.manual_seed(1)
    assert seeds == [1]  # what is not to be called
    before = torch.get_rng_state()
    SteeredModel(codec, SAE.unset(8, 16, "relu"), "latent")
    measured_lookahead_s(codec)
    Trainee("s", TrainConfig("topk", k=2, expansion=2), torch.ones(5, 4), torch.device("cpu"))
    Listener().transcribe_all([torch.zeros(1, 800)], seed=5)
    assert seeds == [1]
    assert torch.equal(torch.get_rng_state(), before)
