from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from steer.errors import SAEError
from steer.sae import SAE

D, F, K = 12, 40, 5
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(30, D, generator=GENERATOR)
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=GENERATOR)


def freud(path: Path, model: dict[str, Tensor], **hparams: Any) -> Path:
    """As its trainer saves: the optimizer's state, and a best loss as numpy has it."""
    whisper = {"model": "tiny", "layer_name": "encoder.blocks.2"}
    rest = {"optimizer": {"state": {}}, "step": 3, "best_val_loss": np.array([0.5, 1.0]).mean()}
    torch.save({"model": model, "hparams": {"activation_size": D, "whisper_config": whisper} | hparams} | rest, path)
    return path


def test_freud_l1(tmp_path: Path) -> None:
    W, bias = normal(D, F), normal(F)
    sae = SAE.load(freud(tmp_path / "step3.pth", {"decoder.weight": W, "encoder_bias": bias}, autoencoder_variant="l1"))
    columns = W / W.norm(dim=0)
    f = (X @ columns + bias).relu()
    torch.testing.assert_close(sae.encode(X), f, **CLOSE)
    torch.testing.assert_close(sae(X), f @ columns.T, **CLOSE)
    assert (sae.info.model, sae.info.site) == ("whisper:tiny", "encoder.2")


@pytest.mark.parametrize("options", [{"autoencoder_config": {"k": K}}, {"topk_params": {"k": K}}])
def test_freud_top_k(options: dict[str, Any], tmp_path: Path) -> None:
    model = {"encoder.weight": normal(F, D), "encoder.bias": normal(F), "W_dec": normal(F, D), "b_dec": normal(D)}
    sae = SAE.load(freud(tmp_path / "bestval.pth", model, autoencoder_variant="topk", **options))
    values, places = ((X - model["b_dec"]) @ model["encoder.weight"].T + model["encoder.bias"]).relu().topk(K)
    f = torch.zeros(len(X), F).scatter(1, places, values)
    torch.testing.assert_close(sae.encode(X), f, **CLOSE)
    torch.testing.assert_close(sae(X), f @ model["W_dec"] + model["b_dec"], **CLOSE)


def test_freud_without_k(tmp_path: Path) -> None:
    model = {"encoder.weight": normal(F, D), "encoder.bias": normal(F), "W_dec": normal(F, D), "b_dec": normal(D)}
    path = freud(tmp_path / "bestval.pth", model, autoencoder_variant="topk")
    with pytest.warns(UserWarning, match="does not say k.*32 is taken.*pass k"):
        assert SAE.load(path).k == 32
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert SAE.load(path, k=K).k == K


def whisper_sae() -> dict[str, Tensor]:
    names = {"b_pre": (D,), "encoder.weight": (F, D), "encoder.bias": (F,), "decoder.weight": (D, F)}
    counters = {"feature_last_activated": torch.zeros(F, dtype=torch.long), "step_count": torch.tensor(9)}
    return {name: normal(*shape) for name, shape in names.items()} | {"decoder.bias": normal(D)} | counters


@pytest.mark.parametrize("bare", [False, True])
def test_whisper_sae_top_k(bare: bool, tmp_path: Path) -> None:
    state = whisper_sae()
    config = {"k": K, "component": "encoder", "layer_idx": 2}
    torch.save(state if bare else {"model_state_dict": state, "config": config}, tmp_path / "sae_final.pt")
    if bare:
        with pytest.raises(SAEError, match="does not say k"):
            SAE.load(tmp_path)
    sae = SAE.load(tmp_path, k=K if bare else None)
    values, places = ((X - state["b_pre"]) @ state["encoder.weight"].T + state["encoder.bias"]).topk(K)
    f = torch.zeros(len(X), F).scatter(1, places, values.relu())
    torch.testing.assert_close(sae.encode(X), f, **CLOSE)
    decoded = f @ state["decoder.weight"].T + state["decoder.bias"] + state["b_pre"]
    torch.testing.assert_close(sae(X), decoded, **CLOSE)
    assert sae.info.site == ""  # its inputs went through a layer norm that no site of ours has behind it
    sae.save(tmp_path / "ours")


def test_whisper_sae_relu(tmp_path: Path) -> None:
    state = {name: value for name, value in whisper_sae().items() if name.startswith(("encoder", "decoder"))}
    torch.save({"model_state_dict": state}, tmp_path / "final.pt")
    sae = SAE.load(tmp_path)
    f = (X @ state["encoder.weight"].T + state["encoder.bias"]).relu()
    torch.testing.assert_close(sae.encode(X), f, **CLOSE)
    torch.testing.assert_close(sae(X), f @ state["decoder.weight"].T + state["decoder.bias"], **CLOSE)


def test_what_does_not_fit(tmp_path: Path) -> None:
    torch.save({"model_state_dict": whisper_sae() | {"b_pre": normal(D + 1)}, "config": {"k": K}}, tmp_path / "a.pt")
    with pytest.raises(SAEError, match=r"b_pre is \[13\]"):
        SAE.load(tmp_path / "a.pt")
    torch.save({"model_state_dict": [1]}, tmp_path / "b.pt")
    with pytest.raises(SAEError, match="model_state_dict is not a dict"):
        SAE.load(tmp_path / "b.pt")
    freud(tmp_path / "c.pth", {"encoder.weight": normal(F, D)})
    with pytest.raises(SAEError, match="missing: encoder.bias, W_dec, b_dec"):
        SAE.load(tmp_path / "c.pth")
