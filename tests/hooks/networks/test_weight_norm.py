from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from hooks.networks.weight_norm import WeightNormConv1d, WeightNormConvTranspose1d, WeightNormLinear

PAIRS: dict[str, tuple[Any, Any, Any]] = {
    "linear": (WeightNormLinear, nn.Linear, {}),
    "conv": (WeightNormConv1d, nn.Conv1d, {"kernel_size": 5, "stride": 2, "dilation": 3, "padding": 4}),
    "transposed": (
        WeightNormConvTranspose1d,
        nn.ConvTranspose1d,
        {"kernel_size": 10, "stride": 5, "padding": 3, "output_padding": 1},
    ),
}


@pytest.mark.parametrize("kind", list(PAIRS))
def test_it_is_torchs_own_weight_norm_with_the_same_names(kind: str) -> None:
    cls, plain, options = PAIRS[kind]
    theirs = nn.utils.weight_norm(plain(6, 4, **options))
    with torch.no_grad():
        theirs.weight_g.mul_(1.7)  # else the norm would not matter
    ours = cls(6, 4, **options)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 6) if kind == "linear" else torch.randn(2, 6, 40)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-6, rtol=1e-5)  # float32 sums in another order


@pytest.mark.parametrize("kind", list(PAIRS))
def test_it_starts_as_the_plain_layer_and_can_be_copied(kind: str) -> None:
    cls, plain, options = PAIRS[kind]
    torch.manual_seed(1)
    reference = plain(6, 4, **options)
    torch.manual_seed(1)
    ours = cls(6, 4, **options)
    x = torch.randn(2, 6) if kind == "linear" else torch.randn(2, 6, 40)
    torch.testing.assert_close(ours(x), reference(x), atol=1e-6, rtol=1e-5)  # g * v / |v|, rounded
    assert torch.equal(copy.deepcopy(ours)(x), ours(x))
