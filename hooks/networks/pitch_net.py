"""A pitch estimator that is equivariant to transposition by construction, as PESTO is (arXiv 2309.02265).

Convolutions along a log-frequency spectrum, then one long convolution onto pitch bins: a sound a semitone higher gives
the same logits a semitone higher.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hooks.networks.harmonics import framed

PER_SEMITONE = 3
"""Bins a semitone, of the spectrum and of pitch."""
LOW, HIGH = 16, 127
"""Range of the log-frequency spectrum in MIDI notes."""
PITCH_LOW, PITCH_HIGH = 27, 99
"""Range of pitch in MIDI notes."""
BINS = (PITCH_HIGH - PITCH_LOW) * PER_SEMITONE + 1
WINDOWS = (2048, 1024)
N_FFT = 4096
REACH = 54 * PER_SEMITONE
RANGE = 8.0
"""The spectrum reaches from a frame's strongest bin down by e^-8 (70 dB)."""


def log_frequency_map(sample_rate: int) -> Tensor:
    """From an FFT's bins to the log axis, [F, bins]: triangles half a bin of the log axis, or one of the FFT, wide."""
    midi = torch.arange(LOW * PER_SEMITONE, HIGH * PER_SEMITONE + 1) / PER_SEMITONE
    hz = 440 * 2 ** ((midi - 69) / 12)
    frequency = torch.arange(N_FFT // 2 + 1) * sample_rate / N_FFT
    step = 2 ** (0.5 / PER_SEMITONE / 12) - 2 ** (-0.5 / PER_SEMITONE / 12)
    half = torch.maximum(hz * step, torch.tensor(sample_rate / N_FFT))
    weights = (1 - (frequency[:, None] - hz[None]).abs() / half[None]).clamp(min=0)
    return weights / weights.sum(0, keepdim=True).clamp(min=1e-6)


class PitchNet(nn.Module):
    """Waveform [B, N] to pitch logits [B, BINS, T]."""

    lag: Tensor
    inside: Tensor
    map: Tensor

    def __init__(self, sample_rate: int, hop: int, channels: int = 16) -> None:
        super().__init__()
        self.hop = hop
        self.c1 = nn.Conv2d(2, channels, (15, 3), padding=(7, 1))
        self.c2 = nn.Conv2d(channels, channels, (15, 3), padding=(7, 1))
        self.c3 = nn.Conv2d(channels, channels, (9, 3), padding=(4, 1))
        self.toeplitz = nn.Parameter(0.003 * torch.randn(channels, 2 * REACH + 1))
        self.bias = nn.Parameter(torch.zeros(1))
        first = (PITCH_LOW - LOW) * PER_SEMITONE
        lag = torch.arange((HIGH - LOW) * PER_SEMITONE + 1)[:, None] - (first + torch.arange(BINS))[None] + REACH
        self.register_buffer("lag", lag.clamp(0, 2 * REACH), persistent=False)
        self.register_buffer("inside", ((lag >= 0) & (lag <= 2 * REACH)).float(), persistent=False)
        self.register_buffer("map", log_frequency_map(sample_rate), persistent=False)
        for length in WINDOWS:
            self.register_buffer(f"window{length}", torch.hann_window(length), persistent=False)

    @torch.no_grad()
    def spectrum(self, x_BN: Tensor, frames: int) -> Tensor:
        """Log-frequency log spectra [B, 2, bins, T] with a long and a short window, -1 to 1 in each frame."""
        spectra = []
        for length in WINDOWS:
            window = getattr(self, f"window{length}").float()
            magnitude_BTF = torch.fft.rfft(framed(x_BN, length, self.hop, frames) * window, N_FFT).abs() * (2 / length)
            spectra.append((magnitude_BTF @ self.map.float() + 1e-5).log())
        s_B2TF = torch.stack(spectra, 1)
        s_B2TF = (s_B2TF - s_B2TF.amax((1, 3), keepdim=True)).clamp(min=-RANGE)
        return (s_B2TF / 4 + 1).transpose(2, 3)

    def forward(self, x_BN: Tensor, frames: int) -> Tensor:
        with torch.autocast(x_BN.device.type, enabled=False):
            spectrum = self.spectrum(x_BN.float(), frames)
        h = F.gelu(self.c1(spectrum.to(self.c1.weight.dtype)))
        h = h + F.gelu(self.c2(h))
        h = h + F.gelu(self.c3(h))
        onto_bins = (self.toeplitz[:, self.lag] * self.inside).flatten(0, 1)
        flat = h.permute(0, 3, 1, 2).flatten(2)
        return (flat @ onto_bins.to(flat.dtype)).transpose(1, 2) + self.bias


def read_pitch(logits_BPT: Tensor) -> tuple[Tensor, Tensor]:
    """(MIDI notes [B, T], probability of the best bin [B, T]): the mean of the bins within a semitone of the best."""
    p_BPT = logits_BPT.float().softmax(1)
    top_BT, best_BT = p_BPT.max(1)
    # distances from the best bin, and not notes: their mean is rounded far less
    distance_BPT = torch.arange(BINS, device=logits_BPT.device)[None, :, None] - best_BT[:, None]
    near_BPT = p_BPT * (distance_BPT.abs() <= PER_SEMITONE)
    mean_BT = (near_BPT * distance_BPT).sum(1) / near_BPT.sum(1).clamp(min=1e-9)
    return PITCH_LOW + (best_BT + mean_BT) / PER_SEMITONE, top_BT
