"""Frames aligned with HuBERT's, cepstra that are Kaldi's, and clusters that can be checked by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

pytest.importorskip("torchaudio", reason="cepstra use its filters (extra eval)")
pytest.importorskip("sklearn", reason="clusters are scikit-learn's (extra eval)")

from training.units import CEPSTRA, FIELD, FLOOR, HOP, MELS, cluster, frame_count, mfcc, nearest, sample_count
from training.utterances import SAMPLE_RATE


@pytest.mark.parametrize("samples", [400, 719, 720, 16_000, 51_279, 51_280])
def test_there_are_as_many_frames_as_the_model_makes(samples: int) -> None:
    transformers = pytest.importorskip("transformers", reason="extra ssl")
    config = transformers.HubertConfig(conv_dim=(2,) * 7)
    layers = [nn.Conv1d(1, 1, *shape) for shape in zip(config.conv_kernel, config.conv_stride, strict=True)]
    frames = nn.Sequential(*layers)(torch.zeros(1, 1, samples)).shape[-1]
    assert mfcc(torch.randn(2, samples)).shape == (2, frames, 3 * CEPSTRA)
    assert frame_count(samples) == frames
    assert sample_count(frames) <= samples < sample_count(frames + 1)


def test_a_frame_sees_the_samples_that_the_model_sees() -> None:
    click_BN = torch.zeros(1, sample_count(40))
    where = 20 * HOP + 30
    click_BN[0, where] = 10.0
    statics_BTC = mfcc(click_BN)[..., :CEPSTRA]
    heard = (statics_BTC[0] != statics_BTC[0, 0]).any(-1).nonzero()[:, 0].tolist()
    assert heard == [t for t in range(40) if t * HOP <= where < t * HOP + FIELD] == [19, 20]


def test_sound_that_comes_a_frame_later_has_units_a_frame_later() -> None:
    audio_BN = torch.randn(1, sample_count(60))
    # differences look 4 frames around
    torch.testing.assert_close(mfcc(audio_BN[:, HOP:])[:, 4:], mfcc(audio_BN)[:, 5:])


def test_cepstra_are_those_of_kaldi_in_loud_sound() -> None:
    kaldi = pytest.importorskip("torchaudio.compliance.kaldi", reason="extra eval")
    audio_BN = 10 * torch.randn(2, 16_000)
    options = {"frame_shift": 20.0, "num_ceps": CEPSTRA, "num_mel_bins": MELS, "window_type": "hanning"}
    options |= {"preemphasis_coefficient": 0.0, "remove_dc_offset": False, "round_to_power_of_two": False}
    theirs = torch.stack([kaldi.mfcc(row[None], sample_frequency=SAMPLE_RATE, **options) for row in audio_BN])
    # the floor is far below each band of this noise; values are up to 100
    torch.testing.assert_close(mfcc(audio_BN)[..., :CEPSTRA], theirs, atol=2e-3, rtol=0)


def test_silence_is_as_far_away_as_the_floor_says() -> None:
    statics_C = mfcc(torch.zeros(1, FIELD))[0, 0, :CEPSTRA]
    # an orthonormal transform of equal numbers has a first coefficient only
    assert statics_C[0] == pytest.approx(MELS**0.5 * torch.tensor(FLOOR).log().item(), rel=1e-5)
    assert statics_C[1:].abs().max() < 1e-3


def test_the_unit_is_the_nearest_centre() -> None:
    x_BTD, centres_KD = torch.randn(3, 50, 5), torch.randn(17, 5) * torch.arange(1, 18)[:, None] / 6
    expected = (x_BTD[:, :, None] - centres_KD).square().sum(-1).argmin(-1)
    assert torch.equal(nearest(x_BTD, centres_KD), expected)
    assert torch.equal(nearest(centres_KD, centres_KD), torch.arange(17))


def test_clusters_that_lie_apart_are_found() -> None:
    middles_KD = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    which_N = torch.arange(300) % 3
    x_ND = middles_KD[which_N] + 0.1 * torch.randn(300, 2)
    units_N = nearest(x_ND, centres_KD := cluster(x_ND, 3, seed=0))
    assert sorted(set(zip(which_N.tolist(), units_N.tolist(), strict=True))) == [(k, int(units_N[k])) for k in range(3)]
    assert len(set(units_N[:3].tolist())) == 3
    for k in range(3):
        # mini-batches only come near the mean: the spread is 0.1, of 100 points
        torch.testing.assert_close(centres_KD[units_N[k]], x_ND[which_N == k].mean(0), atol=0.02, rtol=0)
    assert torch.equal(centres_KD, cluster(x_ND, 3, seed=0))
