from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from steer.errors import SAEError
from steer.formats import write_sae
from steer.sae import SAE, SAEInfo

D, F, K = 12, 40, 5
GENERATOR = torch.Generator().manual_seed(0)
X = 3 + 2 * torch.randn(30, D, generator=GENERATOR)
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def state(**changes: Any) -> dict[str, Any]:
    """As its `state_dict` has them, whose activation is text and plain values."""
    return {
        "pre_bias": torch.randn(D, generator=GENERATOR),
        "encoder.weight": torch.randn(F, D, generator=GENERATOR),
        "latent_bias": torch.randn(F, generator=GENERATOR),
        "decoder.weight": torch.randn(D, F, generator=GENERATOR),
        "stats_last_nonzero": torch.zeros(F, dtype=torch.long),
        "activation": "TopK",
        "activation_state_dict": {"k": K, "postact_fn": "ReLU"},
    } | changes


def test_top_k_with_its_layer_norm(tmp_path: Path) -> None:
    given = state()
    torch.save(given, tmp_path / "8.pt")
    sae = SAE.load(tmp_path / "8.pt")
    mean, std = X.mean(-1, keepdim=True), X.std(-1, keepdim=True)
    pre = ((X - mean) / (std + 1e-5) - given["pre_bias"]) @ given["encoder.weight"].T + given["latent_bias"]
    values, places = pre.topk(K)
    f = torch.zeros_like(pre).scatter(1, places, values.relu())
    torch.testing.assert_close(sae.encode(X), f, **CLOSE)
    decoded = (f @ given["decoder.weight"].T + given["pre_bias"]) * std + mean
    torch.testing.assert_close(sae(X), decoded, atol=1e-4, rtol=1e-5)  # values of about 20


@pytest.mark.parametrize("tied", [False, True])
def test_relu_has_none(tied: bool, tmp_path: Path) -> None:
    given = state(activation="ReLU", activation_state_dict={})
    if tied:
        del given["decoder.weight"]
        given["decoder.linear.weight"] = given["encoder.weight"]
    torch.save(given, tmp_path / "v1.pt")
    sae = SAE.load(tmp_path)
    f = ((X - given["pre_bias"]) @ given["encoder.weight"].T + given["latent_bias"]).relu()
    W_dec = given["encoder.weight"] if tied else given["decoder.weight"].T
    torch.testing.assert_close(sae.encode(X), f, **CLOSE)
    torch.testing.assert_close(sae(X), f @ W_dec + given["pre_bias"], atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [{"activation": "Identity"}, {"activation_state_dict": {"k": K, "postact_fn": "Identity"}}],
)
def test_negative_features_are_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    torch.save(state(**changes), tmp_path / "8.pt")
    with pytest.raises(SAEError, match="is not supported; there are ReLU and TopK of ReLU"):
        SAE.load(tmp_path)


@pytest.mark.parametrize(("kind", "normalize"), [("relu", None), ("topk", "layer_norm")])
@pytest.mark.parametrize("center", [True, False])
def test_what_is_written_comes_back(
    random_sae: Callable[..., SAE], kind: str, normalize: str | None, center: bool, tmp_path: Path
) -> None:
    sae = random_sae(kind, normalize=normalize, center=center)
    sae.info = SAEInfo("m", "encoder.3")
    folder = write_sae(sae, tmp_path / "out", "openai")
    loaded = SAE.load(folder)
    torch.testing.assert_close(loaded.encode(X), sae.encode(X), **CLOSE)
    torch.testing.assert_close(loaded(X), sae(X), atol=1e-4, rtol=1e-5)
    assert loaded.info == sae.info
    written = torch.load(folder / "autoencoder.pt", weights_only=True)
    assert state().keys() <= written.keys()


def test_what_its_loader_would_change_is_not_written(random_sae: Callable[..., SAE], tmp_path: Path) -> None:
    for options in ({"activation": "topk"}, {"activation": "gated"}, {"activation": "relu", "normalize": "layer_norm"}):
        with pytest.raises(SAEError, match="OpenAI's"):
            write_sae(random_sae(**options), tmp_path, "openai")
