import pytest
import torch

from steer.activations import ACTIVATIONS, SEPARABLE, Encoder

X = torch.randn(7, 3, 6, generator=torch.Generator().manual_seed(1))


def encoder(k: int = 4) -> Encoder:
    g = torch.Generator().manual_seed(2)
    W_enc, b_enc, r_mag, b_mag = (torch.randn(shape, generator=g) for shape in [(6, 20), (20,), (20,), (20,)])
    threshold = torch.randn(20, generator=g)  # half of them negative
    return Encoder(W_enc, b_enc, threshold, r_mag * 0.3, b_mag, k)


def test_against_plain_formulas() -> None:
    e = encoder()
    pre = X @ e.W_enc + e.b_enc
    rank = pre.argsort(-1, descending=True).argsort(-1)
    magnitude = (X @ (e.W_enc * e.r_mag.exp()) + e.b_mag).relu()
    expected = {
        "relu": pre.clamp(min=0),
        "jumprelu": pre.relu() * (pre > e.threshold),
        "batchtopk": pre.relu() * (pre > e.threshold),
        "topk": pre.relu() * (rank < 4),
        "gated": magnitude * (pre > 0),
    }
    assert set(expected) == set(ACTIVATIONS)
    for name, f_XF in expected.items():
        # the order of additions differs
        torch.testing.assert_close(ACTIVATIONS[name](e, X), f_XF, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", sorted(SEPARABLE))
def test_picked_columns_are_columns_of_the_whole(name: str) -> None:
    features = torch.tensor([17, 2, 9])
    whole = ACTIVATIONS[name](encoder(), X)[..., features]
    picked = ACTIVATIONS[name](encoder().pick(features), X)
    torch.testing.assert_close(picked, whole, atol=1e-6, rtol=1e-6)  # another matrix product kernel


def test_topk_keeps_k_and_none_that_is_negative() -> None:
    e = encoder(k=4)
    assert int((ACTIVATIONS["topk"](e, X) > 0).sum(-1).max()) == 4
    lowered = Encoder(e.W_enc, e.b_enc - 100, k=4)
    assert not ACTIVATIONS["topk"](lowered, X).any()
    everything = Encoder(e.W_enc, e.b_enc, k=20)
    assert torch.equal(ACTIVATIONS["topk"](everything, X), ACTIVATIONS["relu"](everything, X))
