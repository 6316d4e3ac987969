"""A change of spectrum carried from a codec's output to the recording itself.

The codec's plain and edited outputs D and D' differ by the edit. As a gain |D'| / |D| that is smooth in time and
frequency the change goes to the input x, which so keeps its fine structure, phases and channels:

    y = x |D'| / |D|               where the edit leaves the pitch
    y = D' |x| / |D|               where it moves the pitch: the fine structure is D''s, the envelope the input's

Above the codec's band there is only the input; it gets the gain of the highest bands, or where the pitch is moved the
level that was asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

WINDOW_S, HOP_S = 0.04, 0.01
FINE_BANDS, WIDE_BANDS = (32, 700.0), (14, 1600.0)
"""Numbers of bands and corners (Hz) of their scale log(1 + f / corner). The wide ones do not see single harmonics."""
SMOOTHING = 3
"""Frames of 10 ms over which band powers are averaged, and bands over which the guard of a ratio is."""
GUARD = 0.03
"""The share of the neighbourhood's power that is added on both sides of a ratio: bands without sound get the gain of
those beside them."""
SILENCE = 1e-10
TOP_BANDS = 4
MOST_DB = 36.0
ENVELOPE_DB = 15.0
BAND_END, BAND_FADE = 0.47, 0.025
"""Where the codec's band ends and over how much it is faded, in shares of its rate."""


@dataclass(frozen=True)
class Gain:
    """Gains [C, T, K] every `hop_s` seconds on bands with these centres in Hz [K]."""

    values_CTK: Tensor
    centres_K: Tensor
    hop_s: float

    def at(self, hz_F: Tensor, seconds_T: Tensor) -> Tensor:
        """[C, F, T] at frequencies and times, straight lines between; constant outside the bands."""
        place_T = (seconds_T / self.hop_s).clamp(0, self.values_CTK.shape[1] - 1)
        values_CTK = between(self.values_CTK, place_T, 1)
        right = torch.searchsorted(self.centres_K, hz_F).clamp(1, len(self.centres_K) - 1)
        low, high = self.centres_K[right - 1], self.centres_K[right]
        place_F = right - 1 + ((hz_F - low) / (high - low)).clamp(0, 1)
        return between(values_CTK, place_F, 2).transpose(1, 2)

    def above(self, seconds_T: Tensor) -> Tensor:
        """[C, 1, T] for what lies above the bands: the mean in dB of the highest ones."""
        return self.at(self.centres_K[-TOP_BANDS:], seconds_T).log().mean(1, keepdim=True).exp()


def between(values: Tensor, place: Tensor, dim: int) -> Tensor:
    """Values at fractional indexes of an axis."""
    low = place.floor().long().clamp(max=values.shape[dim] - 1)
    high = (low + 1).clamp(max=values.shape[dim] - 1)
    shape = [1] * values.ndim
    shape[dim] = -1
    share = (place - low).to(values.dtype).view(shape)
    return torch.lerp(values.index_select(dim, low), values.index_select(dim, high), share)


@lru_cache(maxsize=16)
def bands_of(sample_rate: int, n_fft: int, bands: tuple[int, float]) -> tuple[Tensor, Tensor]:
    """(weights [F, K] that sum to 1 over F, centres [K] in Hz) of triangular bands up to the end of a codec's band."""
    count, corner = bands
    hz_F = torch.arange(n_fft // 2 + 1) * sample_rate / n_fft
    top = torch.log1p(torch.tensor(BAND_END * sample_rate / corner))
    edges = corner * torch.expm1(torch.linspace(0, float(top), count + 2))
    rising = (hz_F[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - hz_F[:, None]) / (edges[2:] - edges[1:-1])
    weights_FK = torch.minimum(rising, falling).clamp(min=0)
    nearest = (hz_F[:, None] - edges[1:-1]).abs().argmin(0)
    narrow = weights_FK.sum(0) < 0.5
    weights_FK[nearest[narrow], narrow] = 1.0
    return weights_FK / weights_FK.sum(0), edges[1:-1]


def sizes(sample_rate: int) -> tuple[int, int]:
    """(window, hop) in samples for windows of about 40 ms, a quarter apart."""
    hop = max(8, round(HOP_S * sample_rate))
    return 4 * hop, hop


def spectrum(x_CN: Tensor, sample_rate: int) -> Tensor:
    """STFT [C, F, T] of float32; frame t is centred at t hops."""
    n_fft, hop = sizes(sample_rate)
    window = torch.hann_window(n_fft)
    return torch.stft(x_CN.float(), n_fft, hop, window=window, return_complex=True, pad_mode="constant")


def inverse(spectrum_CFT: Tensor, sample_rate: int, count: int) -> Tensor:
    n_fft, hop = sizes(sample_rate)
    return torch.istft(spectrum_CFT, n_fft, hop, window=torch.hann_window(n_fft), length=count)


def powers(spectrum_CFT: Tensor, sample_rate: int, bands: tuple[int, float]) -> Tensor:
    """Powers [C, T, K] in bands, averaged over neighbouring frames."""
    weights_FK, _ = bands_of(sample_rate, sizes(sample_rate)[0], bands)
    power_CTK = torch.view_as_real(spectrum_CFT).square().sum(-1).transpose(1, 2) @ weights_FK
    return smooth(power_CTK.transpose(1, 2)).transpose(1, 2)


def smooth(values: Tensor, width: int = SMOOTHING) -> Tensor:
    """Means over `width` neighbours of the last axis of [C, ., .]."""
    return torch.nn.functional.avg_pool1d(values, width, 1, width // 2, count_include_pad=False)


def ratio(above_CTK: Tensor, below_CTK: Tensor, most_db: float) -> Tensor:
    """Gains sqrt(above / below) of powers; where there is next to nothing, those of the neighbourhood."""
    guards = [GUARD * smooth(power_CTK, 2 * SMOOTHING + 1) + SILENCE for power_CTK in (above_CTK, below_CTK)]
    limit = 10 ** (most_db / 20)
    return ((above_CTK + guards[0]) / (below_CTK + guards[1])).sqrt().clamp(1 / limit, limit)


def gain_of(above_CFT: Tensor, below_CFT: Tensor, rate: int, bands: tuple[int, float], most_db: float) -> Gain:
    n_fft, hop = sizes(rate)
    above, below = (powers(s, rate, bands) for s in (above_CFT, below_CFT))
    return Gain(ratio(above, below, most_db), bands_of(rate, n_fft, bands)[1], hop / rate)


def change_of(plain_CFT: Tensor, edited_CFT: Tensor, codec_rate: int) -> Gain:
    """The edit as a gain, from spectra at the codec's rate."""
    return gain_of(edited_CFT, plain_CFT, codec_rate, FINE_BANDS, MOST_DB)


def envelope_of(sound_CFT: Tensor, plain_CFT: Tensor, codec_rate: int) -> Gain:
    """What the codec's round trip misses of the envelope, from spectra at the codec's rate."""
    return gain_of(sound_CFT, plain_CFT, codec_rate, WIDE_BANDS, ENVELOPE_DB)


def grid(sample_rate: int, frames: int) -> tuple[Tensor, Tensor]:
    """Frequencies [F] in Hz and times [T] in seconds of a spectrum."""
    n_fft, hop = sizes(sample_rate)
    return torch.arange(n_fft // 2 + 1) * sample_rate / n_fft, torch.arange(frames) * hop / sample_rate


def amplified(sound_CFT: Tensor, gain: Gain, sample_rate: int) -> Tensor:
    """The recording's spectrum times a gain, above the codec's band that of the highest bands."""
    hz_F, seconds_T = grid(sample_rate, sound_CFT.shape[2])
    gain_CFT = gain.at(hz_F, seconds_T)
    above_F = (hz_F > gain.centres_K[-1])[:, None]
    return sound_CFT * torch.where(above_F, gain.above(seconds_T), gain_CFT)


def crossed(codec_CFT: Tensor, sound_CFT: Tensor, above_db: float, sample_rate: int, codec_rate: int) -> Tensor:
    """The codec's spectrum in its band, and above it the recording's, changed by `above_db`."""
    hz_F, _ = grid(sample_rate, 1)
    share_F = ((BAND_END * codec_rate - hz_F) / (BAND_FADE * codec_rate)).clamp(0, 1)[:, None]
    return codec_CFT * share_F + sound_CFT * 10 ** (above_db / 20) * (1 - share_F)
