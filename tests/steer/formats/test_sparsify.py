from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from steer.errors import SAEError
from steer.formats import write_sae
from steer.sae import SAE, SAEInfo

D, F, K = 12, 40, 5
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(30, D, generator=GENERATOR)
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def written(folder: Path, tensors: dict[str, Tensor] | None = None, width: int = F, **cfg: Any) -> dict[str, Tensor]:
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        "encoder.weight": torch.randn(width, D, generator=GENERATOR),
        "encoder.bias": torch.randn(width, generator=GENERATOR),
        "W_dec": torch.randn(width, D, generator=GENERATOR),
        "b_dec": torch.randn(D, generator=GENERATOR),
    } | (tensors or {})
    save_file(state, folder / "sae.safetensors")
    said = {"activation": "topk", "expansion_factor": 32, "num_latents": width, "k": K, "d_in": D, "signed": False}
    (folder / "cfg.json").write_text(json.dumps(said | cfg))
    return state


@pytest.mark.parametrize("width", [F, D])  # as many features as channels: the keys say how it lies
def test_by_the_formula(width: int, tmp_path: Path) -> None:
    state = written(tmp_path / "layers.3", width=width, num_latents=0)
    sae = SAE.load(tmp_path / "layers.3")
    pre = ((X - state["b_dec"]) @ state["encoder.weight"].T + state["encoder.bias"]).relu()
    values, places = pre.topk(K)
    f = torch.zeros_like(pre).scatter(1, places, values)
    torch.testing.assert_close(sae.encode(X), f, **CLOSE)
    torch.testing.assert_close(sae(X), f @ state["W_dec"] + state["b_dec"], **CLOSE)
    assert sae.info.extra["hookpoint"] == "layers.3"


@pytest.mark.parametrize(
    ("cfg", "tensors", "message"),
    [
        ({"activation": "groupmax"}, {}, "'groupmax' is not supported"),
        ({"signed": True}, {}, "signed 'topk' is not supported"),
        ({"transcode": True}, {}, "a transcoder"),
        ({}, {"W_skip": torch.zeros(D, D)}, "a transcoder"),
        ({"k": None}, {}, "topk needs k"),
        ({"d_in": D + 1}, {}, "cfg says 13 x 40, W_enc is 12 x 40"),
        ({}, {"W_dec": torch.zeros(D, F)}, r"W_dec is \[12, 40\], and \[40, 12\] is needed"),
        ({}, {"W_dec": torch.full((F, D), torch.inf)}, "W_dec is not finite"),
    ],
)
def test_what_cannot_be_read_is_refused(
    cfg: dict[str, Any], tensors: dict[str, Tensor], message: str, tmp_path: Path
) -> None:
    written(tmp_path, tensors, **cfg)
    with pytest.raises(SAEError, match=message):
        SAE.load(tmp_path)


@pytest.mark.parametrize("center", [True, False])
def test_what_is_written_comes_back(random_sae: Callable[..., SAE], center: bool, tmp_path: Path) -> None:
    sae = random_sae("topk", center=center)
    sae.info = SAEInfo("m", "encoder.3", 16_000, 50.0)
    loaded = SAE.load(write_sae(sae, tmp_path / "out", "sparsify"))
    torch.testing.assert_close(loaded.encode(X), sae.encode(X), **CLOSE)
    torch.testing.assert_close(loaded(X), sae(X), **CLOSE)
    assert loaded.info == sae.info


def test_only_plain_top_k_is_written(random_sae: Callable[..., SAE], tmp_path: Path) -> None:
    for sae in (random_sae("jumprelu"), random_sae("topk", rms_norm=True), random_sae("topk", normalize="layer_norm")):
        with pytest.raises(SAEError, match="cannot be written for it"):
            write_sae(sae, tmp_path, "sparsify")
