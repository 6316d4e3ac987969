from __future__ import annotations

import pytest
import torch

from hooks.networks.seanet import SEANetEncoder, reflect_pad


@pytest.mark.parametrize("samples", [960, 1_000, 1_001, 40, 39, 5, 1])
def test_it_is_the_encodec_packages_encoder_with_the_same_weights(samples: int) -> None:
    modules = pytest.importorskip("encodec.modules", reason="extra encodec")
    ours = SEANetEncoder(dimension=6, n_filters=4, ratios=(5, 4, 2))
    theirs = modules.SEANetEncoder(dimension=6, n_filters=4, ratios=[5, 4, 2], causal=False, norm="weight_norm")
    ours.load_state_dict(theirs.state_dict())
    audio_B1N = torch.randn(2, 1, samples)
    with torch.no_grad():
        z_BDT = ours(audio_B1N)
        # float32 sums in another order
        torch.testing.assert_close(z_BDT, theirs(audio_B1N), atol=1e-5, rtol=1e-4)
    assert z_BDT.shape == (2, 6, -(-samples // 40))


def test_frames_far_apart_are_independent_without_the_lstm() -> None:
    encoder = SEANetEncoder(dimension=6, n_filters=4, ratios=(5, 4, 2))
    encoder.model[-3] = torch.nn.Identity()
    audio_B1N = torch.randn(1, 1, 2_000)
    changed = audio_B1N.clone()
    changed[..., 1_000:] = 0
    with torch.no_grad():
        same_DT = (encoder(audio_B1N) == encoder(changed)).all(1)[0]
    # 25 frames before the cut; the last convolutions look a few frames ahead
    assert same_DT[:20].all()
    assert not same_DT[25:].any()


def test_short_inputs_are_reflected_with_zeros_behind_them() -> None:
    x_BCT = torch.tensor([[[1.0, 2.0]]])
    assert reflect_pad(x_BCT, 1, 1).tolist() == [[[2.0, 1.0, 2.0, 1.0]]]
    assert reflect_pad(x_BCT, 3, 0).tolist() == [[[0.0, 0.0, 2.0, 1.0, 2.0]]]
