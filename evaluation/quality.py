"""How near an output is to its reference, in measures that the literature uses.

Waveforms are [N] (one channel, float, full scale is 1) and aligned: sample n of both is the same moment. Each measure
resamples (soxr) to the rate it is defined at.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from hooks.errors import MissingExtraError, require
from hooks.networks import source_filter
from hooks.samples import resampled
from steer.acoustics import Acoustics, change, measure

RESOLUTIONS = ((512, 40), (1024, 80), (2048, 120))
"""FFT sizes of the mel distance, and how many mel bands each has."""
MEL_FLOOR = 1e-4
"""Added to magnitudes of which a full-scale sine has 1: what is far below -80 dB makes no difference."""
STOI_RATE, PESQ_RATE, DNSMOS_RATE = 10_000, 16_000, 16_000
PESQ_LONGEST_S = 20.0
"""The reference code holds 50 utterances and fails beyond; a piece of this length has fewer."""
NEAR_CENTS = 50.0
FEWEST_FRAMES = 5
"""Voiced frames without which the pitch is not measured."""


def at_rate(x_N: Tensor, sample_rate: int, wanted: int) -> np.ndarray:
    """A waveform [N] as float32 at another rate."""
    return resampled(x_N.detach().float().cpu(), sample_rate, wanted).numpy()


mel_filters = lru_cache(maxsize=16)(source_filter.mel_filters)


def mel_db(x_N: Tensor, sample_rate: int, n_fft: int, bands: int) -> Tensor:
    """Mel magnitudes [bands, T] in dB of a full-scale sine; Hann windows of n_fft samples, a quarter apart."""
    shortest = n_fft // 2 + 1  # what the reflection at both ends needs
    x_N = torch.nn.functional.pad(x_N, (0, max(0, shortest - len(x_N))))
    window = torch.hann_window(n_fft)
    spectrum_FT = torch.stft(x_N, n_fft, n_fft // 4, window=window, return_complex=True).abs() * (4 / n_fft)
    return 20 * (mel_filters(n_fft, bands, sample_rate).T @ spectrum_FT + MEL_FLOOR).log10()


def mel_distance(x_N: Tensor, y_N: Tensor, sample_rate: int) -> float:
    """Mean absolute difference of the mel magnitudes in dB, over bands and frames and then over `RESOLUTIONS`.

    A multi-resolution mel distance as in the losses of neural codecs (arXiv 2210.13438, 2306.06546). A change of gain
    of g dB gives g where the sound is above the floor. Compare at equal `sample_rate` only.
    """
    x_N, y_N = x_N.detach().float().cpu(), y_N.detach().float().cpu()
    distances = [
        (mel_db(x_N, sample_rate, n_fft, bands) - mel_db(y_N, sample_rate, n_fft, bands)).abs().mean()
        for n_fft, bands in RESOLUTIONS
    ]
    return float(torch.stack(distances).mean())


def sdr_db(x_N: Tensor, y_N: Tensor) -> float:
    """Signal-to-distortion ratio of waveforms of equal shape, dB: 10 log10(|x|^2 / |x - y|^2)."""
    return float(10 * torch.log10(x_N.square().sum() / (x_N - y_N).square().sum().clamp(min=1e-12)))


def stoi(x_N: Tensor, y_N: Tensor, sample_rate: int) -> float | None:
    """Short-time objective intelligibility (Taal et al. 2011), 0 to 1, at 10 kHz.

    None for clips under 0.5 s, and where less than about 0.4 s of speech is left without the silent frames.

    Raises:
        MissingExtraError: pystoi is not installed.
    """
    if len(x_N) < 0.5 * sample_rate:
        return None
    pystoi = require("pystoi", "eval")
    x, y = (at_rate(wave, sample_rate, STOI_RATE) for wave in (x_N, y_N))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        score = float(pystoi.stoi(x, y, STOI_RATE))
    # pystoi's way to say that there are too few frames
    return None if score == 1e-5 else score


def pesq_wb(x_N: Tensor, y_N: Tensor, sample_rate: int) -> float | None:
    """Wide-band PESQ (ITU-T P.862.2), about 1 to 4.64, at 16 kHz; the mean over equal pieces of at most 20 s.

    None where it cannot be computed: under 0.25 s, no speech found in the reference, or a silent output.

    Raises:
        MissingExtraError: pesq is not installed.
    """
    pesq = require("pesq", "eval")
    x, y = (at_rate(wave, sample_rate, PESQ_RATE) for wave in (x_N, y_N))
    if not (x.any() and y.any()):
        return None
    pieces = math.ceil(len(x) / (PESQ_LONGEST_S * PESQ_RATE))
    scores = []
    for before, after in zip(np.array_split(x, pieces), np.array_split(y, pieces), strict=True):
        try:
            scores.append(float(pesq.pesq(PESQ_RATE, before, after, "wb")))
        except (pesq.PesqError, ValueError):  # the second where a piece of the output has no level at all
            continue
    return float(np.mean(scores)) if scores else None


def dnsmos(y_N: Tensor, sample_rate: int) -> float | None:
    """Overall quality of speech as DNSMOS P.835 predicts it without a reference (arXiv 2110.01763), 1 to 5, at 16 kHz.

    Samples beyond full scale are clipped, as in a file. None without the extra `mos`, and for a sound without samples.
    """
    try:
        model = require("speechmos.dnsmos", "mos")
    except MissingExtraError:
        return None
    samples = at_rate(y_N, sample_rate, DNSMOS_RATE).clip(-1, 1)
    return float(model.run(samples, DNSMOS_RATE)["ovrl_mos"]) if len(samples) else None


def dnsmos_absent() -> str:
    """Why `dnsmos` gives None for every sound; "" where it does not."""
    try:
        require("speechmos.dnsmos", "mos")
    except MissingExtraError as error:
        return str(error)
    return ""


@dataclass(frozen=True)
class PitchError:
    """How far the pitch of an output is from that of its reference, in the frames that `steer.acoustics.measure` reads.

    `median_cents` is the median absolute difference where both are voiced (NaN with fewer than five such frames).
    `within_50` is the share of the reference's voiced frames that are voiced in the output and within 50 cents: the raw
    pitch accuracy of melody extraction (Poliner et al. 2007).
    """

    median_cents: float
    within_50: float


def pitch_error(x_T: Tensor | None, y_T: Tensor | None) -> PitchError | None:
    """Difference of pitch tracks in MIDI notes (NaN where unvoiced), as CREPE (arXiv 1802.06182) measures them.

    None where the reference has fewer than five voiced frames, or without a track (the extra `eval`).
    """
    if x_T is None or y_T is None:
        return None
    frames = min(len(x_T), len(y_T))
    cents_T = 100 * (y_T[:frames] - x_T[:frames]).abs()
    voiced = int((~x_T[:frames].isnan()).sum())
    both = cents_T[~cents_T.isnan()]
    if voiced < FEWEST_FRAMES:
        return None
    median = float(both.median()) if len(both) >= FEWEST_FRAMES else math.nan
    return PitchError(median, float((both <= NEAR_CENTS).sum()) / voiced)


def lufs_change(before: Acoustics, after: Acoustics) -> float | None:
    """By how many LU it got louder (integrated loudness, ITU-R BS.1770); None under 0.4 s and in silence."""
    return None if before.lufs is None or after.lufs is None else after.lufs - before.lufs


def scores(
    x_N: Tensor, y_N: Tensor, sample_rate: int, *, speech: bool, pitched: bool, before: Acoustics | None = None
) -> dict[str, float | None]:
    """Every measure of this module at once; None where one does not apply.

    STOI, PESQ and DNSMOS are for `speech`, the pitch for `pitched` sounds. `before` is what `acoustics.measure` says of
    the reference, for several outputs of one reference.
    """
    before = before or measure(x_N[None], sample_rate, pitch=pitched)
    after = measure(y_N[None], sample_rate, pitch=pitched)
    changed = change(before, after)
    pitch = pitch_error(before.pitch_track, after.pitch_track) if pitched else None
    return {
        "mel_db": mel_distance(x_N, y_N, sample_rate),
        "stoi": stoi(x_N, y_N, sample_rate) if speech else None,
        "pesq": pesq_wb(x_N, y_N, sample_rate) if speech else None,
        "dnsmos": dnsmos(y_N, sample_rate) if speech else None,
        "sdr_db": sdr_db(x_N, y_N),
        "level_db": changed["loudness"],
        "lufs": lufs_change(before, after),
        "centroid_percent": changed["brightness"],
        "pitch_cents": pitch.median_cents if pitch and math.isfinite(pitch.median_cents) else None,
        "pitch_within_50": pitch.within_50 if pitch else None,
    }
