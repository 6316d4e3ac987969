from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from steer.delta import site_edit
from steer.edits import Ablate, Clamp, Scale, Shift
from steer.errors import SAEError
from steer.normalize import NORMALIZATIONS
from steer.sae import SAE
from steer.values import Frames

X = 2 + 3 * torch.randn(2, 9, 12, generator=torch.Generator().manual_seed(1))


def test_their_formulas() -> None:
    n, scale, shift = NORMALIZATIONS["layer_norm"](X)
    torch.testing.assert_close(n, (X - X.mean(-1, keepdim=True)) / (X.std(-1, keepdim=True) + 1e-5))
    torch.testing.assert_close(n * scale + shift, X, atol=1e-4, rtol=1e-5)  # all but the epsilon
    n, scale, shift = NORMALIZATIONS["constant_norm_rescale"](X)
    torch.testing.assert_close(n.norm(dim=-1), torch.full((2, 9), 12**0.5))
    torch.testing.assert_close(n * scale + shift, X)


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_silence_is_no_exception(random_sae: Callable[..., SAE], normalize: str) -> None:
    sae = random_sae("relu", normalize=normalize)
    silence = torch.zeros(1, 3, 12)
    assert torch.isfinite(sae.encode(silence)).all()
    assert torch.isfinite(sae(silence)).all()


@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_an_sae_normalises_and_undoes_it(random_sae: Callable[..., SAE], normalize: str) -> None:
    sae, plain = random_sae("topk", normalize=normalize), random_sae("topk")
    n, scale, shift = NORMALIZATIONS[normalize](X)
    assert torch.equal(sae.encode(X), plain.encode(n))
    torch.testing.assert_close(sae(X), plain(n) * scale + shift)
    with pytest.raises(SAEError, match=r"decode\(features, x\)"):
        sae.decode(sae.encode(X))
    assert normalize in repr(sae)
    with pytest.raises(SAEError, match="unknown normalisation 'batch'; there are layer_norm"):
        SAE(3, 4, "relu", normalize="batch")


@pytest.mark.parametrize("kind", ["relu", "topk", "gated"])
@pytest.mark.parametrize("normalize", NORMALIZATIONS)
def test_edits_change_activations_in_their_own_scale(random_sae: Callable[..., SAE], normalize: str, kind: str) -> None:
    """The touched columns alone give the same as decoding both ends in full."""
    sae = random_sae(kind, normalize=normalize)
    vector = torch.randn(40)
    edits = [Ablate([3, 17]), Scale([5], 2.0), Shift(vector, 0.7), Clamp([8], 1.5)]
    f = sae.encode(X)
    new = f.clone()
    new[..., [3, 17]] = 0
    new[..., 5] *= 2
    new = new + 0.7 * vector
    new[..., 8] = 1.5
    frames = Frames.of(X, 50.0, 0.0)
    expected = X + sae.decode(new, X) - sae.decode(f, X)
    torch.testing.assert_close(site_edit(sae, edits)(X, frames), expected, atol=1e-4, rtol=1e-5)
    reconstructed = site_edit(sae, edits, "reconstruct")(X, frames)
    torch.testing.assert_close(reconstructed, sae.decode(new, X), atol=1e-4, rtol=1e-5)
