from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from hooks.networks.vocos import AdaLayerNorm, AttentionBlock, InverseSTFT, ISTFTHead, VocosBackbone


@pytest.mark.parametrize(("n_fft", "hop"), [(160, 40), (128, 32), (120, 40)])
def test_the_inverse_stft_inverts_a_same_padded_stft(n_fft: int, hop: int) -> None:
    audio_BN = torch.randn(2, 12 * hop)
    edge = (n_fft - hop) // 2
    frames_BTN = F.pad(audio_BN, (edge, edge)).unfold(1, n_fft, hop) * torch.hann_window(n_fft)
    spectrum_BFT = torch.fft.rfft(frames_BTN).transpose(1, 2)
    assert spectrum_BFT.shape[-1] == 12
    # float32 FFTs there and back
    torch.testing.assert_close(InverseSTFT(n_fft, hop)(spectrum_BFT), audio_BN, atol=1e-5, rtol=1e-4)


def test_the_head_reads_log_magnitudes_and_phases() -> None:
    head = ISTFTHead(8, 160, 40)
    magnitude_BFT, phase_BFT = torch.rand(1, 81, 6) + 0.1, torch.rand(1, 81, 6) * 6
    spectrum_BTF = torch.cat([magnitude_BFT.log(), phase_BFT], dim=1).transpose(1, 2)
    expected = head.istft(torch.polar(magnitude_BFT, phase_BFT))
    torch.testing.assert_close(head.synthesise(spectrum_BTF), expected, atol=1e-5, rtol=1e-4)  # exp(log(x))
    assert torch.isfinite(head.synthesise(torch.full((1, 6, 162), 500.0))).all()
    assert head(torch.randn(2, 6, 8)).shape == (2, 240)


def test_the_head_reads_phases_as_the_angle_of_a_pair() -> None:
    head = ISTFTHead(8, 160, 40, phase_pair=True)
    magnitude_BFT, phase_BFT, length_BFT = (
        torch.rand(1, 81, 6) + 0.1,
        torch.rand(1, 81, 6) * 6,
        torch.rand(1, 81, 6) + 1,
    )
    pair = [length_BFT * phase_BFT.cos(), length_BFT * phase_BFT.sin()]
    spectrum_BTF = torch.cat([magnitude_BFT.log(), *pair], dim=1).transpose(1, 2)
    expected = head.istft(torch.polar(magnitude_BFT, phase_BFT))
    # the guard against pairs of length 0 shortens others by at most 1e-6
    torch.testing.assert_close(head.synthesise(spectrum_BTF), expected, atol=1e-5, rtol=1e-4)
    assert torch.isfinite(head.synthesise(torch.zeros(1, 6, 243))).all()
    assert head(torch.randn(2, 6, 8)).shape == (2, 240)


def test_attention_is_softmax_over_all_frames() -> None:
    block = AttentionBlock(32)
    x_BCT = torch.randn(2, 32, 7)
    q, k, v = (layer(block.norm(x_BCT)) for layer in (block.q, block.k, block.v))
    weights_BTS = torch.einsum("bct,bcs->bts", q, k).div(math.sqrt(32)).softmax(-1)
    expected = x_BCT + block.proj_out(torch.einsum("bts,bcs->bct", weights_BTS, v))
    torch.testing.assert_close(block(x_BCT), expected, atol=1e-5, rtol=1e-4)  # another order of sums


def test_without_attention_the_backbone_is_local() -> None:
    backbone = VocosBackbone(8, 32, 48, num_layers=2, attention=False)
    z_BDT = torch.randn(1, 8, 60)
    changed = z_BDT.clone()
    changed[..., 30] += 1.0
    with torch.no_grad():
        same_T = (backbone(z_BDT) == backbone(changed)).all(-1)[0]
    # embed and two blocks: three convolutions of 7 frames see 9 frames to each side
    assert same_T[:21].all()
    assert same_T[40:].all()
    assert not same_T[30]


@pytest.mark.parametrize("attention", [True, False])
def test_conditioned_norms_need_and_use_the_condition(attention: bool) -> None:
    backbone = VocosBackbone(8, 32, 48, num_layers=2, num_conditions=4, attention=attention)
    torch.nn.init.normal_(backbone.norm.scale.weight)  # type: ignore[union-attr, arg-type]
    z_BDT = torch.randn(3, 8, 10)
    with pytest.raises(ValueError, match="pass bandwidth_id"):
        backbone(z_BDT)
    first = backbone(z_BDT, torch.tensor([0]))
    assert first.shape == (3, 10, 32)
    assert not torch.allclose(first, backbone(z_BDT, torch.tensor([1])))
    each = backbone(z_BDT, torch.tensor([[0], [1], [0]]))
    torch.testing.assert_close(each[0], first[0])


def test_a_fresh_conditioned_norm_is_a_plain_one() -> None:
    x_BTC = torch.randn(2, 5, 16)
    normed = AdaLayerNorm(4, 16)(x_BTC, torch.tensor([2]))
    torch.testing.assert_close(normed, F.layer_norm(x_BTC, (16,), eps=1e-6))
