"""A harmonic source of any pitch, noise that depends only on its place, and filters that change over time.

The parts of a source-filter synthesiser that have no weights, after DDSP (arXiv 2001.04643) and the neural
source-filter models (arXiv 1904.12088).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

TOP = 29 / 60
"""Harmonics reach up to this share of the sampling rate; the last one is faded in, so that a glide adds none with a
click."""
JUMP = 2.0
"""Semitones from frame to frame above which pitch jumps instead of gliding."""
NOISE_BLOCK = 24_000


@dataclass
class Phase:
    """The running phase of the last chunk of a recording: `cycles_BN` from sample `start` on.

    A codec that is given its sound in overlapping chunks goes on from it, so that chunks join without a seam.
    """

    start: int
    cycles_BN: Tensor

    def offset_at(self, sample: int, cycles_B: Tensor) -> Tensor | None:
        """What to add [B] so that phases `cycles_B` at a sample of the recording agree; None if it is not known."""
        place = sample - self.start
        if not 0 <= place < self.cycles_BN.shape[1] or len(self.cycles_BN) != len(cycles_B):
            return None
        return self.cycles_BN[:, place] - cycles_B


def framed(x_BN: Tensor, length: int, hop: int, frames: int) -> Tensor:
    """Windows [B, frames, length] of [B, N], frame t centred at (t + 0.5) * hop; zeros outside the sound."""
    left = length // 2 - hop // 2
    needed = (frames - 1) * hop + length
    x_BN = F.pad(x_BN, (left, max(0, needed - left - x_BN.shape[1])))
    return x_BN[:, :needed].unfold(1, length, hop)[:, :frames]


def at_samples(values_BT: Tensor, hop: int, jump: float) -> Tensor:
    """Values at frame centres at every sample [B, T * hop]: straight lines between; steps above `jump` stay steps."""
    frames = values_BT.shape[1]
    sample_N = torch.arange(frames * hop, device=values_BT.device)
    place_N = ((sample_N + 0.5) / hop - 0.5).clamp(0, frames - 1)
    left_N = place_N.floor().long().clamp(max=max(frames - 2, 0))
    left_BN, right_BN = values_BT[:, left_N], values_BT[:, (left_N + 1).clamp(max=frames - 1)]
    share_BN = (place_N - left_N).to(values_BT.dtype).expand_as(left_BN)
    steps_BN = (share_BN > 0.5).to(share_BN.dtype)
    share_BN = torch.where((right_BN - left_BN).abs() > jump, steps_BN, share_BN)
    return left_BN * (1 - share_BN) + right_BN * share_BN


@torch.no_grad()
def running_phase(midi_BT: Tensor, hop: int, sample_rate: int) -> tuple[Tensor, Tensor]:
    """(cycles [B, N], frequency in Hz [B, N]) of a pitch track in MIDI notes, both float64."""
    # float64: an error of a thousandth of a cycle is a twentieth at the fiftieth harmonic
    midi_BT = (midi_BT.cpu() if midi_BT.device.type == "mps" else midi_BT).double().clamp(15, 118)
    f0_BN = 440 * 2 ** ((at_samples(midi_BT, hop, JUMP) - 69) / 12)
    return torch.cumsum(f0_BN / sample_rate, 1), f0_BN


@torch.no_grad()
def harmonic_source(cycles_BN: Tensor, f0_BN: Tensor, sample_rate: int) -> Tensor:
    """Cosines of all harmonics up to `TOP`, of equal amplitude and unit spectral density, float32 [B, N].

    In closed form, the Dirichlet kernel of the phase: its cost does not depend on the number of harmonics.
    """
    phase_BN = ((cycles_BN + 0.5) % 1 - 0.5).float()
    f0_BN = f0_BN.float()
    reach_BN = TOP * sample_rate / f0_BN
    count_BN = reach_BN.floor()
    half_BN = math.pi * phase_BN
    sine_BN = half_BN.sin()
    at_peak_BN = sine_BN.abs() < 1e-4
    kernel_BN = ((2 * count_BN + 1) * half_BN).sin() / (2 * torch.where(at_peak_BN, 1.0, sine_BN)) - 0.5
    kernel_BN = torch.where(at_peak_BN, count_BN, kernel_BN)
    kernel_BN = kernel_BN + (reach_BN - count_BN) * (2 * math.pi * (count_BN + 1) * phase_BN).cos()
    return kernel_BN * (2 * f0_BN / (sample_rate / 2)).sqrt()


def noise_at(start: int, count: int, seed: int) -> Tensor:
    """White noise [count] from sample `start` of a recording on: the same wherever a chunk of it begins."""
    blocks = []
    for block in range(start // NOISE_BLOCK, (start + count - 1) // NOISE_BLOCK + 1):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + block)
        blocks.append(torch.randn(NOISE_BLOCK, generator=generator))
    first = start // NOISE_BLOCK * NOISE_BLOCK
    return torch.cat(blocks)[start - first : start - first + count]


def minimum_phase(log_BTF: Tensor, n_fft: int) -> Tensor:
    """Complex response [B, T, F] of minimum phase with these log magnitudes, by folding the cepstrum."""
    cepstrum = torch.fft.irfft(log_BTF.to(torch.complex64), n_fft)
    fold = torch.zeros(n_fft, device=log_BTF.device)
    fold[0] = fold[n_fft // 2] = 1
    fold[1 : n_fft // 2] = 2
    return torch.exp(torch.fft.rfft(cepstrum * fold, n_fft))


def filtered(source_BN: Tensor, response_BTF: Tensor, window: Tensor, hop: int, n_fft: int, early: int = 0) -> Tensor:
    """[B, T * hop]: windows of the source through a response each, added up.

    `early` samples of an impulse response may lie before its time (zero-phase filters).
    """
    frames = response_BTF.shape[1]
    windows_BTN = framed(source_BN, 2 * hop, hop, frames) * window
    y_BTN = torch.fft.irfft(torch.fft.rfft(windows_BTN, n_fft) * response_BTF, n_fft)
    if early:
        y_BTN = torch.roll(y_BTN, early, 2)
    length = (frames - 1) * hop + n_fft
    y_BN = F.fold(y_BTN.transpose(1, 2), (1, length), (1, n_fft), stride=(1, hop))[:, 0, 0]
    start = hop // 2 + early
    y_BN = F.pad(y_BN, (0, max(0, start + frames * hop - length)))
    return y_BN[:, start : start + frames * hop]
