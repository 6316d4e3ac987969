"""The tolerances of tests: above what rounding does, below what a mistake does."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.tolerance import of_network, of_rounding, of_sums


@pytest.mark.parametrize("terms", [16, 96, 400, 3000])
@pytest.mark.parametrize("level", [1e-3, 1.0, 50.0])
def test_sums_in_any_order_are_within_and_mistakes_are_not(terms: int, level: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x_NT = level * torch.randn(2000, terms, generator=generator)
    exact_N = x_NT.double().sum(1)
    forwards_N = torch.zeros(2000)
    for column_N in x_NT.T:  # one after the other: the least exact way
        forwards_N = forwards_N + column_N
    bound = of_sums(terms, level)
    for sums_N in (forwards_N, x_NT.sum(1), x_NT.flip(1).cumsum(1)[:, -1]):
        assert (sums_N - exact_N).abs().max() < bound / 2
    # one term that is left out is nearly always found, and so are ten bits of mantissa
    assert ((x_NT[:, 1:].sum(1) - exact_N).abs() > bound).double().mean() > 0.98
    assert (x_NT.bfloat16().float().sum(1) - exact_N).abs().max() > bound or terms > 1000


def test_of_other_dtypes_and_of_steps() -> None:
    assert of_sums(8, 2.0, torch.float64) == pytest.approx(4 * 2.0**-52 * 16)
    assert of_sums(8, 2.0, layers=3) == 3 * of_sums(8, 2.0)
    assert of_rounding(0.5, 2) == 2.0**-23


def test_of_a_network_follows_how_its_errors_grow() -> None:
    x_NT = torch.randn(50, 64)
    mild, steep = (nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 8)) for _ in range(2))
    with torch.no_grad():
        steep[2].weight.mul_(1000)
    bounds = [of_network(net, lambda module, x: module(x), x_NT) for net in (mild, steep)]
    assert 0 < bounds[0] < 1e-5
    assert bounds[1] > 100 * bounds[0]
    # another order of the same sums, and a dropped input, which is no rounding
    with torch.no_grad():
        turned = nn.functional.linear(x_NT.flip(1), mild[0].weight.flip(1), mild[0].bias)
        assert (mild[2](turned.tanh()) - mild(x_NT)).abs().max() < bounds[0]
        x_NT[:, 0] = 0
        assert (mild[2](turned.tanh()) - mild(x_NT)).abs().max() > 100 * bounds[0]
    # the module is left as it was
    assert mild[0].weight.dtype == torch.float32
