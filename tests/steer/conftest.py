"""SAEs with random weights of every kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from steer.activations import ACTIVATIONS
from steer.matmul import BACKENDS, precise, using
from steer.sae import SAE

KINDS = [(activation, rms_norm) for activation in ACTIVATIONS for rms_norm in (False, True)]


@pytest.fixture
def random_sae() -> Callable[..., SAE]:
    """random_sae("topk", d_in=12, d_sae=40, rms_norm=False, center=True): all parameters random."""

    def make(activation: str, d_in: int = 12, d_sae: int = 40, **options: Any) -> SAE:
        torch.manual_seed(len(activation))
        sae = SAE(d_in, d_sae, activation, 5, **options).requires_grad_(False)
        for name, value in sae.named_parameters():
            value.copy_(torch.rand_like(value) * 0.5 if name == "threshold" else torch.randn_like(value) * 0.3)
        return sae

    return make


@pytest.fixture(params=KINDS, ids=[f"{activation}{'-rms' if rms_norm else ''}" for activation, rms_norm in KINDS])
def any_sae(request: pytest.FixtureRequest, random_sae: Callable[..., SAE]) -> SAE:
    """An SAE of every activation, with and without RMS norm."""
    activation, rms_norm = request.param
    return random_sae(activation, rms_norm=rms_norm)


@pytest.fixture
def has_onednn(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN is used for what it suits, whatever AUDIOSTEER_TEST_ONEDNN says; without it a test skips."""
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", True)
    if not precise():
        pytest.skip("this build of torch has no oneDNN")


@pytest.fixture(params=BACKENDS)
def each_backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Products by each of the libraries."""
    if request.param == "oneDNN":
        request.getfixturevalue("has_onednn")
    with using(request.param):
        yield request.param
