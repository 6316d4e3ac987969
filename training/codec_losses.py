"""What `starter:wavtokenizer` is trained to minimise, and the known changes that its latent is taught to follow."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from hooks.errors import require
from training.source_filter_losses import magnitudes


def mel_filters(sample_rate: int, n_fft: int, n_mels: int) -> Tensor:
    """Triangular filters on the HTK mel scale that sum to 1 each, [n_fft / 2 + 1, n_mels].

    Raises:
        MissingExtraError: librosa is not installed.
    """
    librosa = require("librosa", "eval")
    filters = librosa.filters.mel(sr=sample_rate, n_fft=n_fft, n_mels=n_mels, htk=True, norm=None)
    filters_FM = torch.from_numpy(filters).T
    # the lowest filters may be narrower than a bin
    return filters_FM / filters_FM.sum(0).clamp(min=1e-3)


class SpectralDistance(torch.nn.Module):
    """Distance of two waveforms [B, N] that ignores phase, one number per item [B].

    Mean absolute difference of log mel magnitudes at several resolutions, and of magnitudes compressed by a square
    root at a resolution that separates the harmonics of a voice.
    """

    def __init__(
        self, sample_rate: int, sizes: tuple[tuple[int, int], ...] = ((512, 40), (1024, 80), (2048, 120))
    ) -> None:
        super().__init__()
        self.sizes = sizes
        for n_fft, n_mels in sizes:
            self.register_buffer(f"mel_{n_fft}", mel_filters(sample_rate, n_fft, n_mels))
            self.register_buffer(f"window_{n_fft}", torch.hann_window(n_fft))

    def forward(self, x_BN: Tensor, y_BN: Tensor) -> Tensor:
        total = x_BN.new_zeros(len(x_BN))
        for n_fft, _ in self.sizes:
            window, mel = getattr(self, f"window_{n_fft}"), getattr(self, f"mel_{n_fft}")
            x_BFT, y_BFT = (magnitudes(wave, window, n_fft // 4) for wave in (x_BN, y_BN))
            x_BTM, y_BTM = x_BFT.transpose(1, 2) @ mel, y_BFT.transpose(1, 2) @ mel
            floor = 1e-4  # -80 dB: below it, levels are not heard and must not be chased
            total = total + ((x_BTM + floor).log() - (y_BTM + floor).log()).abs().mean((1, 2))
        root_x, root_y = x_BFT.sqrt(), y_BFT.sqrt()
        contrast = (root_x - root_y).abs().sum((1, 2)) / root_x.sum((1, 2)).clamp(min=1e-3)
        return total / len(self.sizes) + contrast


def log_error_ratio(x_BN: Tensor, y_BN: Tensor) -> Tensor:
    """log of the error's energy over the signal's energy, [B]: minus the signal-to-distortion ratio, in nepers."""
    guard = 1e-6 * x_BN.shape[1]
    error, energy = (x_BN - y_BN).square().sum(1), x_BN.square().sum(1)
    return ((error + guard) / (energy + guard) + 1e-3).log()


def band_error_ratio(
    x_BN: Tensor, y_BN: Tensor, sample_rate: int, edges: tuple[int, ...] = (0, 500, 1000, 2000, 4000)
) -> Tensor:
    """Mean over bands (Hz) of `log_error_ratio` within the band, [B].

    Most of the energy of speech lies below 500 Hz: over the whole band alone, what lies above is not learned.
    """
    count = x_BN.shape[1]
    guard = 1e-6 * count
    # by Parseval's theorem in the units of the waveform's energy
    error_BF, energy_BF = (torch.fft.rfft(wave).abs().square() * (2 / count) for wave in (x_BN - y_BN, x_BN))
    bins = [round(hz * count / sample_rate) for hz in edges]
    ratios = [
        ((error_BF[:, low:high].sum(1) + guard) / (energy_BF[:, low:high].sum(1) + guard) + 1e-3).log()
        for low, high in pairwise(bins)
    ]
    return torch.stack(ratios).mean(0)


def log_angle(x_BN: Tensor, y_BN: Tensor) -> Tensor:
    """log(1 - cosine) of the waveforms, [B]. It does not know levels, so it cannot be lowered by falling silent."""
    return (1 - cosine_similarity(x_BN, y_BN, dim=1, eps=1e-4) + 1e-3).log()
