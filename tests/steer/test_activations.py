import pytest
import torch

from steer.activations import ACTIVATIONS, Activation
from steer.encoder import Encoder
from steer.errors import SAEError

X = torch.randn(7, 3, 6, generator=torch.Generator().manual_seed(1))


def encoder(k: int = 4) -> Encoder:
    g = torch.Generator().manual_seed(2)
    W_enc, b_enc, r_mag, b_mag = (torch.randn(shape, generator=g) for shape in [(6, 20), (20,), (20,), (20,)])
    threshold = torch.randn(20, generator=g)  # half of them negative
    return Encoder(W_enc, b_enc, {"threshold": threshold, "r_mag": r_mag * 0.3, "b_mag": b_mag}, k)


def test_against_plain_formulas() -> None:
    e = encoder()
    pre = X @ e.W_enc + e.b_enc
    rank = pre.argsort(-1, descending=True).argsort(-1)
    magnitude = (X @ (e.W_enc * e.own["r_mag"].exp()) + e.own["b_mag"]).relu()
    expected = {
        "relu": pre.clamp(min=0),
        "jumprelu": pre.relu() * (pre > e.own["threshold"]),
        "batchtopk": pre.relu() * (pre > e.own["threshold"]),
        "topk": pre.relu() * (rank < 4),
        "gated": magnitude * (pre > 0),
    }
    assert set(expected) == set(ACTIVATIONS)
    for name, f_XF in expected.items():
        # the order of additions differs
        torch.testing.assert_close(ACTIVATIONS[name].encode(e, X), f_XF, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_picked_columns_are_columns_of_the_whole(name: str) -> None:
    features, activation = torch.tensor([17, 2, 9]), ACTIVATIONS[name]
    whole = activation.encode(encoder(), X)[..., features]
    assert whole.any()
    if activation.separable:
        picked = activation.encode(encoder().pick(features), X)
    else:
        picked = activation.among(encoder(), features)(X)
        torch.testing.assert_close(Activation.among(activation, encoder(), features)(X), whole, atol=0, rtol=0)
    torch.testing.assert_close(picked, whole, atol=1e-6, rtol=1e-6)  # another matrix product kernel


def test_topk_keeps_k_and_none_that_is_negative() -> None:
    e, topk = encoder(k=4), ACTIVATIONS["topk"]
    assert int((topk.encode(e, X) > 0).sum(-1).max()) == 4
    lowered = Encoder(e.W_enc, e.b_enc - 100, k=4)
    assert not topk.encode(lowered, X).any()
    everything = Encoder(e.W_enc, e.b_enc, k=20)
    assert torch.equal(topk.encode(everything, X), ACTIVATIONS["relu"].encode(everything, X))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_shifted_encoder_takes_shifted_inputs(name: str) -> None:
    c_D, e = torch.linspace(-1, 1, 6), encoder()
    f_XF = ACTIVATIONS[name].encode(ACTIVATIONS[name].shifted(e, c_D @ e.W_enc), X)
    torch.testing.assert_close(f_XF, ACTIVATIONS[name].encode(e, X + c_D), atol=1e-5, rtol=1e-5)


def test_unknown_activations_are_named_with_those_that_are_there() -> None:
    with pytest.raises(SAEError, match="unknown activation 'softplus'; there are relu, topk"):
        ACTIVATIONS["softplus"]
