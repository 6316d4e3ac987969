"""Units for masked prediction, as HuBERT has them (arXiv 2106.07447): k-means clusters of frames.

A frame here is a frame of HuBERT: it sees 400 samples, 320 after those of the frame before, and nothing is padded.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hooks.errors import require
from training.utterances import SAMPLE_RATE

HOP, FIELD = 320, 400
CEPSTRA, MELS, LIFTER = 13, 23, 22
FLOOR = 3e-4
"""Added to the energy of each mel band: 60 dB below that of noise of variance 1. In digital silence its logarithm would
be far from all that is ever recorded, and most units would be edges of silence."""


def frame_count(samples: int) -> int:
    return (samples - FIELD) // HOP + 1


def sample_count(frames: int) -> int:
    return (frames - 1) * HOP + FIELD


def mfcc(audio_BN: Tensor) -> Tensor:
    """Kaldi's liftered mel cepstra with their first and second differences [B, T, 39], of audio of variance about 1.

    Raises:
        MissingExtraError: torchaudio is not installed.
    """
    functional, kaldi = require("torchaudio.functional", "eval"), require("torchaudio.compliance.kaldi", "eval")
    window = torch.hann_window(FIELD, periodic=False)
    spectrum_BFT = torch.stft(audio_BN, FIELD, HOP, window=window, center=False, return_complex=True).abs().square()
    filters_MF, _ = kaldi.get_mel_banks(MELS, FIELD, SAMPLE_RATE, 20.0, 0.0, 100.0, -500.0, 1.0)
    # Kaldi leaves out the last bin, half the sampling rate
    mel_BTM = spectrum_BFT[:, :-1].transpose(1, 2) @ filters_MF.T
    lifter_C = 1 + LIFTER / 2 * torch.sin(math.pi * torch.arange(CEPSTRA) / LIFTER)
    cepstra_BTC = (mel_BTM + FLOOR).log() @ functional.create_dct(CEPSTRA, MELS, "ortho") * lifter_C
    first_BCT = functional.compute_deltas(cepstra_BTC.transpose(1, 2))
    second_BCT = functional.compute_deltas(first_BCT)
    return torch.cat([cepstra_BTC, first_BCT.transpose(1, 2), second_BCT.transpose(1, 2)], dim=-1)


def cluster(x_ND: Tensor, count: int, seed: int) -> Tensor:
    """Centres [count, D] by scikit-learn's mini-batch k-means, with HuBERT's settings but for the number of starts.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    require("sklearn", "eval")
    from sklearn.cluster import MiniBatchKMeans

    settings = {"batch_size": 10_000, "tol": 0.0, "max_no_improvement": 100, "reassignment_ratio": 0.0, "n_init": 3}
    return torch.from_numpy(MiniBatchKMeans(count, random_state=seed, **settings).fit(x_ND.numpy()).cluster_centers_)


def nearest(x_BTD: Tensor, centres_KD: Tensor) -> Tensor:
    """The unit of each frame [B, T]: its nearest centre."""
    return (x_BTD @ centres_KD.T - centres_KD.square().sum(1) / 2).argmax(-1)
