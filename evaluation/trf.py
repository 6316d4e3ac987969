"""Temporal response functions (TRF): ridge regression of a response, such as EEG, on a stimulus at several lags.

    r(t) = sum over l of w(l) s(t - l) + bias + noise,    w = (S'S + ridge I)^-1 S'r

S holds the stimulus at all lags, with zeros outside of a run; the bias is not penalised. S itself is never built: what
a fit and the correlation of its predictions need are sums over time (`Moments`), which add up over runs. S'S depends on
the stimulus alone, so that one Cholesky factor serves all subjects and channels, and S'r is a cross-correlation, taken
by FFT in blocks: only the lags that are asked for are computed.

The weights are those of mTRFpy (Crosse et al. 2016), which multiplies the ridge and the weights by the sampling rate.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

RIDGES = tuple(10.0**power for power in range(-2, 7))


@dataclass(frozen=True)
class Lags:
    """Lags in samples: `count` of them from `first` on. At a positive lag the response follows the stimulus."""

    first: int
    count: int

    @classmethod
    def between(cls, start_s: float, end_s: float, rate: float) -> Lags:
        # 0.5 s * 128 Hz may come out a little above 64
        first, last = math.floor(start_s * rate + 1e-9), math.ceil(end_s * rate - 1e-9)
        return cls(first, last - first + 1)

    def seconds(self, rate: float) -> Tensor:
        return torch.arange(self.first, self.first + self.count, dtype=torch.float64) / rate


# --- sums over time ---


def lagged_products(s_FT: Tensor, r_CT: Tensor, lags: Lags) -> Tensor:
    """S'r [F, C, L] for every stimulus and response: the sum over t of s(t - lag) r(t)."""
    size, s_FBK, r_CBK = block_spectra(s_FT, r_CT, lags)
    return torch.fft.irfft(torch.einsum("fbk,cbk->fck", s_FBK.conj(), r_CBK), size)[..., : lags.count]


def lagged_pairs(s_T: Tensor, r_T: Tensor, lags: Lags) -> Tensor:
    """The same [..., L] for pairs: stimuli and responses [..., T] of shapes that broadcast."""
    size, s_BK, r_BK = block_spectra(s_T, r_T, lags)
    return torch.fft.irfft((s_BK.conj() * r_BK).sum(-2), size)[..., : lags.count]


def block_spectra(s_T: Tensor, r_T: Tensor, lags: Lags) -> tuple[int, Tensor, Tensor]:
    """The length of the FFT, and spectra [..., blocks, K] of the stimulus in blocks and of the response that each block
    meets at some lag. Their products, summed over blocks, are the spectrum of the cross-correlation at these lags."""
    size = 1 << max(10, (8 * lags.count - 1).bit_length())
    step = size - lags.count + 1
    blocks = -(-s_T.shape[-1] // step)
    s_BN = pad(s_T, (0, blocks * step - s_T.shape[-1])).unflatten(-1, (blocks, step))
    length = blocks * step + lags.count - 1
    # from the response at the first lag on; negative padding cuts
    r_BN = pad(r_T, (-lags.first, length - r_T.shape[-1] + lags.first)).unfold(-1, size, step)
    return size, torch.fft.rfft(s_BN, size), torch.fft.rfft(r_BN, size)


def lagged_gram(s_T: Tensor, u_T: Tensor, lags: Lags) -> Tensor:
    """S'U [..., L, L] for pairs of stimuli [..., T]: the sum over t of s(t - lag_i) u(t - lag_j).

    The first row and column are cross-correlations; one step down a diagonal adds the product that enters at the start
    of the run and takes away the one that leaves at its end.
    """
    s_T, u_T = torch.broadcast_tensors(s_T, u_T)
    length = s_T.shape[-1]
    gram_LL = s_T.new_empty(*s_T.shape[:-1], lags.count, lags.count)
    gram_LL[..., 0, :] = lagged_pairs(u_T, shifted(s_T, lags.first), lags)
    gram_LL[..., :, 0] = lagged_pairs(s_T, shifted(u_T, lags.first), lags)
    lag_L = torch.arange(lags.first, lags.first + lags.count, device=s_T.device)
    enter_LL = at(s_T, -1 - lag_L)[..., :, None] * at(u_T, -1 - lag_L)[..., None, :]
    leave_LL = at(s_T, length - 1 - lag_L)[..., :, None] * at(u_T, length - 1 - lag_L)[..., None, :]
    step_LL = enter_LL - leave_LL
    for i in range(lags.count - 1):
        gram_LL[..., i + 1, 1:] = gram_LL[..., i, :-1] + step_LL[..., i, :-1]
    return gram_LL


def shifted(s_T: Tensor, lag: int) -> Tensor:
    """s(t - lag), zeros where it is not known."""
    return pad(s_T, (lag, -lag))


def at(s_T: Tensor, index_L: Tensor) -> Tensor:
    """Values [..., L] at moments; zeros outside."""
    inside_L = (index_L >= 0) & (index_L < s_T.shape[-1])
    return s_T[..., index_L.clamp(0, s_T.shape[-1] - 1)] * inside_L


@dataclass(frozen=True)
class Moments:
    """Sums over the samples of some runs, for F models of K weights each and C responses."""

    count: int
    gram_FKK: Tensor
    cross_FKC: Tensor
    sums_FK: Tensor
    response_C: Tensor
    squares_C: Tensor

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.count + other.count,
            self.gram_FKK + other.gram_FKK,
            self.cross_FKC + other.cross_FKC,
            self.sums_FK + other.sums_FK,
            self.response_C + other.response_C,
            self.squares_C + other.squares_C,
        )

    def of(self, responses: Sequence[int]) -> Moments:
        """With some of the responses alone."""
        chosen = list(responses)
        return Moments(
            self.count,
            self.gram_FKK,
            self.cross_FKC[..., chosen],
            self.sums_FK,
            self.response_C[chosen],
            self.squares_C[chosen],
        )

    def centred(self) -> tuple[Tensor, Tensor, Tensor]:
        """Covariances [F, K, K] and [F, K, C] and variances [C], each times the number of samples: an unpenalised bias
        takes the means off."""
        mean_FK = self.sums_FK / self.count
        return (
            self.gram_FKK - mean_FK[:, :, None] * self.sums_FK[:, None, :],
            self.cross_FKC - mean_FK[:, :, None] * self.response_C,
            self.squares_C - self.response_C.square() / self.count,
        )


def moments(stimuli_PFT: Tensor, r_CT: Tensor, lags: Lags) -> Moments:
    """Of one run: F models, each of P stimuli at all lags (K = P x L, stimulus by stimulus). In float64."""
    stimuli_PFT, r_CT = stimuli_PFT.double(), r_CT.double()
    count, models, _ = stimuli_PFT.shape
    size = count * lags.count
    gram = stimuli_PFT.new_empty(models, count, lags.count, count, lags.count)
    for i in range(count):
        rows_PFLL = lagged_gram(stimuli_PFT[i], stimuli_PFT[i:], lags)
        gram[:, i, :, i:] = rows_PFLL.permute(1, 2, 0, 3)
        gram[:, i:, :, i] = rows_PFLL.permute(1, 0, 3, 2)
    cross_PFCL = torch.stack([lagged_products(s_FT, r_CT, lags) for s_FT in stimuli_PFT])
    ones_T = torch.ones_like(r_CT[0])
    sums_PFL = lagged_pairs(stimuli_PFT, ones_T, lags)
    return Moments(
        r_CT.shape[-1],
        gram.reshape(models, size, size),
        cross_PFCL.permute(1, 0, 3, 2).reshape(models, size, -1),
        sums_PFL.transpose(0, 1).reshape(models, size),
        r_CT.sum(-1),
        r_CT.square().sum(-1),
    )


# --- fits ---


def fit(total: Moments, ridge: float | Tensor) -> Tensor:
    """Weights [F, K, C]; `ridge` is one number for all weights or one for each [K], above 0."""
    covariance_FKK, cross_FKC, _ = total.centred()
    size = covariance_FKK.shape[-1]
    penalty_K = torch.as_tensor(ridge, dtype=covariance_FKK.dtype).expand(size)
    return torch.cholesky_solve(cross_FKC, torch.linalg.cholesky(covariance_FKK + torch.diag(penalty_K)))


def predict(weights_KC: Tensor, stimuli_PT: Tensor, lags: Lags) -> Tensor:
    """[C, T]: what one model of P stimuli, without its bias, predicts for a run."""
    length = stimuli_PT.shape[-1]
    size = length + lags.count
    weights_PCL = weights_KC.unflatten(0, (len(stimuli_PT), lags.count)).transpose(1, 2)
    spectrum_CK = (torch.fft.rfft(weights_PCL, size) * torch.fft.rfft(stimuli_PT.double(), size)[:, None]).sum(0)
    return shifted(torch.fft.irfft(spectrum_CK, size), lags.first)[:, :length]


def correlation(weights_FKC: Tensor, total: Moments) -> Tensor:
    """[F, C]: of what the weights predict for some runs with the responses there; 0 where either is constant."""
    covariance_FKK, cross_FKC, variance_C = total.centred()
    explained_FC = (weights_FKC * cross_FKC).sum(1)
    spread_FC = torch.einsum("fkc,fkc->fc", weights_FKC, covariance_FKK @ weights_FKC)
    size_FC = (spread_FC.clamp(min=0) * variance_C.clamp(min=0)).sqrt()
    return torch.where(size_FC > 0, explained_FC / size_FC.clamp(min=1e-300), 0)


def summed(runs: Sequence[Moments]) -> Moments:
    total, *others = runs
    for other in others:
        total = total + other
    return total
