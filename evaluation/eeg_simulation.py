"""EEG with a known answer: kernels at known features, in pink noise; what a study of brains would find of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from evaluation.brain import Findings, Study, Tracks
from evaluation.eeg import band_passed, scaled
from evaluation.trf import Lags, lagged_products

BAND = (1.0, 8.0)
PEAKS_S = (0.08, 0.4)
"""Where the peaks of kernels are."""
WIDTH_S = 0.03
"""Standard deviation of a kernel, a Gaussian bump."""
R = 0.05
"""Correlation of each planted response with the EEG: that of real features with real EEG is about as large."""
PLANTED = 5
TOLERANCE_S = 0.016


@dataclass(frozen=True)
class Planted:
    """A feature that the simulated EEG answers, `peak_s` seconds later, with a weight of that sign."""

    feature: int
    peak_s: float
    sign: int


def plant(features: Sequence[int], rng: np.random.Generator) -> list[Planted]:
    """Kernels for features, their peaks spread over `PEAKS_S` and their signs in turn, in random order."""
    peaks = rng.permutation(np.linspace(*PEAKS_S, len(features)))
    signs = rng.permutation(np.resize([1, -1], len(features)))
    return [
        Planted(int(feature), float(peak), int(sign))
        for feature, peak, sign in zip(features, peaks, signs, strict=True)
    ]


def responses(tracks: Tracks, planted: Sequence[Planted], rate: float, delay_s: float = 0.0) -> dict[str, np.ndarray]:
    """{run: [P, T]}: what each planted feature evokes, in the band of the EEG, with variance 1 over all runs."""
    t_K = np.arange(round((PEAKS_S[1] + delay_s + 6 * WIDTH_S) * rate)) / rate
    found = {}
    for run, f_FT in tracks.items():
        length = f_FT.shape[-1]
        evoked = [
            one.sign
            * np.convolve(f_FT[one.feature].numpy(), np.exp(-0.5 * ((t_K - one.peak_s - delay_s) / WIDTH_S) ** 2))
            for one in planted
        ]
        found[run] = band_passed(np.stack(evoked)[:, :length], rate, BAND)
    spread_P = np.concatenate(list(found.values()), axis=1).std(1)
    return {run: evoked_PT / spread_P[:, None] for run, evoked_PT in found.items()}


def pink_noise(count: int, length: int, rate: float, rng: np.random.Generator) -> np.ndarray:
    """[count, T] of power 1 / f in the band of the EEG, with variance 1."""
    spectrum = np.fft.rfft(rng.standard_normal((count, length)))
    spectrum[:, 1:] /= np.sqrt(np.fft.rfftfreq(length, 1 / rate)[1:])
    noise = band_passed(np.fft.irfft(spectrum, length), rate, BAND)
    return noise / noise.std(1, keepdims=True)


def simulated(
    evoked: Mapping[str, np.ndarray],
    subjects: int,
    r: float | np.ndarray,
    rate: float,
    development: Sequence[str],
    rng: np.random.Generator,
) -> Study:
    """EEG of `subjects`: noise of their own, and the sum of the evoked responses {run: [P, T]}, each of which has the
    correlation `r` with the EEG. `r` may be one for each subject [S]."""
    r_S1 = np.broadcast_to(np.asarray(r, dtype=np.float64), subjects)[:, None]
    count = len(next(iter(evoked.values())))
    # variance of noise 1 - P r^2 beside that of P responses r^2 each
    noise_S1 = np.sqrt(np.maximum(1 - count * r_S1**2, 1e-6))
    eeg = {}
    for run, evoked_PT in evoked.items():
        noise_ST = pink_noise(subjects, evoked_PT.shape[-1], rate, rng)
        eeg[run] = torch.from_numpy(scaled(r_S1 * evoked_PT.sum(0) + noise_S1 * noise_ST))
    everybody = tuple(range(subjects))
    return Study(
        tuple(str(subject) for subject in everybody),
        eeg,
        dict.fromkeys(evoked, everybody),
        tuple(development),
        tuple(run for run in evoked if run not in development),
        rate,
    )


# --- what was found of it ---


@dataclass(frozen=True)
class Answer:
    """Of one simulation: how many planted features were found, and of these at the right lag and sign; how many others
    were found, and of these how many are like a planted one (`likeness` above .1)."""

    planted: int
    found: int
    right: int
    others: int
    alike: int


def answer(tested: Findings, planted: Sequence[Planted], likeness_FP: Tensor, delay_s: float = 0.0) -> Answer:
    found_F = tested.found_F
    lag_F, side_F = tested.surer(tested.lag_F2), tested.side_F
    hits = [one for one in planted if found_F[one.feature]]
    right = [
        one
        for one in hits
        if abs(float(lag_F[one.feature]) - one.peak_s - delay_s) <= TOLERANCE_S
        and (side_F[one.feature] == 1) == (one.sign > 0)
    ]
    others_F = found_F.clone()
    others_F[[one.feature for one in planted]] = False
    alike = int((likeness_FP[others_F].amax(1) > 0.1).sum()) if planted and others_F.any() else 0
    return Answer(len(planted), len(hits), len(right), int(others_F.sum()), alike)


def likeness(tracks: Tracks, planted: Sequence[Planted], rate: float, reach_s: float = 0.25) -> Tensor:
    """[F, P]: the largest correlation, of either sign, of each feature with a planted one at a distance of up to
    `reach_s`, in the band of the EEG, where the protocol sees them."""
    lags = Lags.between(-reach_s, reach_s, rate)
    index = [one.feature for one in planted]
    products, squares = [], []
    for f_FT in tracks.values():
        x_FT = torch.from_numpy(band_passed(f_FT.double().numpy(), rate, BAND))
        x_FT = x_FT - x_FT.mean(1, keepdim=True)
        products.append(lagged_products(x_FT[index], x_FT, lags))
        squares.append(x_FT.square().sum(1))
    squares_F = sum(squares, torch.zeros(())).clamp(min=1e-30)
    largest_PF = sum(products, torch.zeros(())).abs().amax(-1)
    return (largest_PF / (squares_F[index, None] * squares_F).sqrt()).T


def sparse_features(count: int, runs: Mapping[str, int], rate: float, rng: np.random.Generator) -> dict[str, Tensor]:
    """{run: [F, T]} of runs {name: samples}: independent features that fire in bursts of one to ten frames of 20 ms,
    about twice a second."""
    found = {}
    for run, samples in runs.items():
        frames = round(samples / rate * 50) + 1
        starts = rng.random((count, frames)) < 2 / 50
        latest = np.maximum.accumulate(np.where(starts, np.arange(frames), -frames), axis=1)
        height, length = rng.uniform(0.2, 1.0, starts.shape), rng.integers(1, 11, starts.shape)
        of = np.maximum(latest, 0)
        lasts = np.arange(frames) - latest < np.take_along_axis(length, of, 1)
        f_FT = np.where(lasts, np.take_along_axis(height, of, 1), 0.0)
        at_T = np.minimum((np.arange(samples) / rate * 50).astype(int), frames - 1)
        found[run] = torch.from_numpy(f_FT[:, at_T])
    return found
