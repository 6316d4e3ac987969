from collections.abc import Callable

import pytest
import torch

from steer.decoding import decoded, moved
from steer.errors import EditError, SAEError
from steer.sae import SAE, EncodesAndDecodes, rms_normalized

X = torch.randn(4, 9, 12, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("activation", ["relu", "jumprelu", "topk", "gated"])
def test_encodes_by_the_formula(random_sae: Callable[..., SAE], activation: str, center: bool) -> None:
    sae = random_sae(activation, center=center)
    x = X - sae.b_dec if center else X
    pre = x @ sae.W_enc + sae.b_enc
    if activation == "gated":
        expected = (pre > 0) * (x @ (sae.W_enc * sae.r_mag.exp()) + sae.b_mag).relu()
    elif activation == "topk":
        expected = pre.relu() * (pre >= pre.topk(5).values[..., -1:])
    elif activation == "jumprelu":
        expected = pre * (pre > sae.threshold)
    else:
        expected = pre.relu()
    # b_dec is folded into the bias, which rounds otherwise
    torch.testing.assert_close(sae.encode(X), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sae(X), expected @ sae.W_dec + sae.b_dec, atol=1e-5, rtol=1e-5)


def test_rms_norm_gives_features_of_one_size(random_sae: Callable[..., SAE]) -> None:
    plain, normed = random_sae("relu"), random_sae("relu", rms_norm=True)
    f_BTF = normed.encode(X)
    torch.testing.assert_close(f_BTF.square().mean(-1), torch.ones(4, 9))
    h_BTF = plain.encode(X)
    torch.testing.assert_close(f_BTF, h_BTF / h_BTF.square().mean(-1, keepdim=True).sqrt())
    assert not rms_normalized(torch.zeros(2, 5)).any()


def test_works_in_its_own_dtype(random_sae: Callable[..., SAE]) -> None:
    sae = random_sae("relu").double()
    assert sae.encode(X.half()).dtype == torch.float64
    assert sae.decode(torch.zeros(2, 40, dtype=torch.half)).dtype == torch.float64


def test_any_leading_axes(any_sae: SAE) -> None:
    flat = any_sae.encode(X.flatten(0, 1))
    torch.testing.assert_close(any_sae.encode(X), flat.view(4, 9, -1))
    torch.testing.assert_close(any_sae.encode(X[2, 3]), flat.view(4, 9, -1)[2, 3], atol=1e-6, rtol=1e-5)


def test_separable_exactly_where_one_feature_needs_no_other(any_sae: SAE) -> None:
    assert any_sae.separable == (not any_sae.rms_norm and any_sae.activation != "topk")


def test_is_what_it_asks_of_others(random_sae: Callable[..., SAE]) -> None:
    assert isinstance(random_sae("relu"), EncodesAndDecodes)


def test_says_what_it_is(random_sae: Callable[..., SAE]) -> None:
    assert "12 -> 40, topk, k=5" in repr(random_sae("topk"))


@pytest.mark.parametrize(("activation", "k"), [("soft", 3), ("topk", None), ("batchtopk", 41), ("topk", 0)])
def test_refuses_what_makes_no_sense(activation: str, k: int | None) -> None:
    with pytest.raises(SAEError):
        SAE(12, 40, activation, k)


def test_feature_ids(random_sae: Callable[..., SAE]) -> None:
    sae = random_sae("relu")
    assert sae.check_features([3, 0]).tolist() == [3, 0]
    assert sae.check_features([]).tolist() == []
    for bad in ([40], [-1], [1.5], [True]):
        with pytest.raises(EditError):
            sae.check_features(bad)


@pytest.mark.parametrize("normalize", [None, "layer_norm", "constant_norm_rescale"])
def test_what_features_add_where_no_activation_is_given(random_sae: Callable[..., SAE], normalize: str | None) -> None:
    sae, new, old = random_sae("relu", normalize=normalize), *torch.randn(2, 3, 40)
    expected = (new - old) @ sae.W_dec
    torch.testing.assert_close(moved(sae, new, old), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(decoded(sae, new), new @ sae.W_dec + sae.b_dec, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rms_norm", [False, True])
@pytest.mark.parametrize("normalize", [None, "layer_norm"])
def test_sparse_is_the_dense_without_its_zeros(
    random_sae: Callable[..., SAE], rms_norm: bool, normalize: str | None
) -> None:
    sae = random_sae("topk", rms_norm=rms_norm, normalize=normalize)
    f_XF = sae.encode(X)
    values, indices = sae.encode_sparse(X)
    assert values.shape == indices.shape == (4, 9, 5)
    assert torch.equal(torch.zeros_like(f_XF).scatter(-1, indices, values), f_XF)
    # the same sums in another order
    torch.testing.assert_close(sae.decode_sparse(values, indices, X), sae.decode(f_XF, X), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sae(X), sae.decode(f_XF, X), atol=1e-5, rtol=1e-5)
    with pytest.raises(SAEError, match="only a top-k SAE"):
        random_sae("relu").encode_sparse(X)


def test_large_enough_for_chunks_and_gathering(any_sae: SAE) -> None:
    """1100 vectors, 600 features: every part takes its own way, and the numbers are those of the formula."""
    torch.manual_seed(0)
    sae = SAE(48, 600, any_sae.activation, 5, rms_norm=any_sae.rms_norm).requires_grad_(False)
    sae.b_enc.normal_(-0.3, 0.1)
    sae.b_dec.normal_()
    x = torch.randn(1100, 48)
    expected = sae.double()(x)
    torch.testing.assert_close(sae.float()(x).double(), expected, atol=5e-5, rtol=0)
    torch.testing.assert_close(sae.decode(sae.encode(x)).double(), expected, atol=5e-5, rtol=0)
