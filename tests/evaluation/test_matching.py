from __future__ import annotations

import numpy as np
import pytest
import torch

from evaluation.matching import FeatureSums, decoder_cosine, in_blocks, random_like, regrouped
from steer.sae import SAE

WIDTH, FEATURES = 16, 48


def sae_of(seed: int, d_sae: int = FEATURES) -> SAE:
    torch.manual_seed(seed)
    return SAE(WIDTH, d_sae, "topk", k=6)


def test_correlation_is_numpys() -> None:
    saes = [sae_of(1), sae_of(2, d_sae=32)]
    x_ND = torch.randn(700, WIDTH) + 2  # so that features have means far from zero
    features = [sae.encode(x_ND).detach() for sae in saes]
    features[0][:, 5] = 0.3  # never changes
    features[1][:, 7] = 1_000 + torch.rand(700)  # a mean that dwarfs what changes
    sums = FeatureSums(saes)
    for start in range(0, 700, 100):
        sums.add([f_NF[start : start + 100] for f_NF in features])
    with np.errstate(invalid="ignore"):
        own = np.corrcoef(*(f_NF.double().numpy().T for f_NF in features))[:FEATURES, FEATURES:]
    own = torch.from_numpy(np.nan_to_num(own)).float()
    # float32 sums; 1000 + rand is itself rounded to 6e-5
    torch.testing.assert_close(sums.correlation(0, 1), own, atol=2e-5, rtol=0)
    assert torch.equal(sums.correlation(1, 0), sums.correlation(0, 1).T)
    assert (sums.correlation(0, 1)[5] == 0).all()
    assert torch.equal(sums.fires[0], (features[0] > 0).sum(0).double())


def test_overlap_by_hand() -> None:
    """Two features of one seed, three of the other; 12 frames."""
    a_FN = torch.tensor([[1] * 6 + [0] * 6, [0] * 10 + [1] * 2]).float()
    b_GN = torch.tensor([[1] * 4 + [0] * 8, [1] * 12, [0] * 12]).float()
    sums = FeatureSums([sae_of(1, d_sae=8), sae_of(2, d_sae=8)])
    for start in (0, 5):  # values play no part, nor do blocks
        rows = slice(start, 5 if start == 0 else None)
        pad_NF = torch.zeros(len(a_FN.T[rows]), 6)
        sums.add([torch.cat([0.3 * a_FN.T[rows], pad_NF], 1), torch.cat([7 * b_GN.T[rows], pad_NF[:, :5]], 1)])
    assert sums.overlap(0, 1)[:2, :3].tolist() == [
        [pytest.approx(4 / 6), 0.5, 0],
        [0, pytest.approx(2 / 12), 0],
    ]
    assert torch.equal(sums.overlap(1, 0), sums.overlap(0, 1).T)
    assert (sums.overlap(0, 1)[2:] == 0).all() and (sums.overlap(0, 1, shuffled=True) <= 1).all()
    # a feature of all frames overlaps with a shuffled one as with itself: the control sees that
    assert sums.overlap(0, 1, shuffled=True)[0, 1] == 0.5


def test_random_directions_have_the_same_number_and_second_moments() -> None:
    directions_FD = torch.randn(400, 4) * torch.tensor([3.0, 1.0, 1.0, 0.1])
    random_FD = random_like(directions_FD, torch.Generator().manual_seed(0)) / 400**0.5
    assert random_FD.shape == directions_FD.shape
    own = torch.nn.functional.normalize(directions_FD, dim=1)
    # 400 draws: 1 / sqrt(400) of the largest moment, three times
    torch.testing.assert_close(random_FD.T @ random_FD / 400, own.T @ own / 400, atol=0.15, rtol=0)
    assert decoder_cosine(own, own).diagonal() == pytest.approx(np.ones(400), abs=1e-6)


def test_regrouped_frames_are_the_same_frames() -> None:
    x_ND = torch.arange(23)[:, None]
    pieces = list(regrouped(x_ND.split([2, 9, 12]), 5))
    assert [len(piece) for piece in pieces] == [5, 5, 5, 5, 3]
    assert torch.equal(torch.cat(pieces), x_ND)
    assert torch.equal(torch.cat(list(in_blocks(x_ND, 4))), x_ND)
