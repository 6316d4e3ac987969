from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from steer import thresholds
from steer.errors import SAEError
from steer.sae import SAE
from steer.thresholds import calibrate_threshold

X = torch.randn(3, 50, 12, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("normalize", [None, "layer_norm"])
@pytest.mark.parametrize("kind", ["topk", "batchtopk"])
def test_k_features_a_frame_on_average(
    random_sae: Callable[..., SAE], kind: str, normalize: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thresholds, "CHUNK", 40)
    sae = random_sae(kind, normalize=normalize)
    found = calibrate_threshold(sae, X)
    assert int(found.encode(X).count_nonzero()) == 5 * 150
    assert (found.activation, found.k, found.separable) == ("batchtopk", 5, True)
    assert sae.activation == kind  # left alone
    # the largest of all, as in training
    everything = SAE(12, 40, "relu", normalize=normalize)
    everything.load_state_dict({name: value for name, value in sae.state_dict().items() if name != "threshold"})
    f = everything.encode(X)
    assert torch.equal(found.encode(X) > 0, f >= f.flatten().topk(750).values[-1])


def test_fewer_positive_than_k(random_sae: Callable[..., SAE]) -> None:
    sae = random_sae("topk")
    sae.b_enc.sub_(3.0)
    found = calibrate_threshold(sae, X)
    assert not found.threshold.any()


def test_what_has_no_threshold(random_sae: Callable[..., SAE]) -> None:
    with pytest.raises(SAEError, match="stands for the k of a BatchTopK SAE"):
        calibrate_threshold(random_sae("relu"), X)
    with pytest.raises(SAEError, match=r"activations are \[3, 50, 11\]"):
        calibrate_threshold(random_sae("topk"), X[..., :11])


def test_one_that_was_found_is_kept(random_sae: Callable[..., SAE], tmp_path: Path) -> None:
    found = calibrate_threshold(random_sae("topk"), X)
    assert torch.equal(SAE.load(found.save(tmp_path)).encode(X), found.encode(X))
