"""How much of the EEG a feature explains, and how much of that beyond the loudness of the speech.

Nearly every feature of speech follows the envelope, which the EEG follows, too: a response says no more than that
somebody speaks. Here what of a feature cannot be predicted from the envelope and its onset (`without`) is put beside
these two in one model (banded ridge: a ridge for them and one for the feature), and what counts is by how much the
correlation on test runs rises. The feature as it is would gain also where the EEG follows the envelope alone: a ridge
makes the weights of the envelope too small, and whatever resembles it makes up for that.

That the correlation rises is tested over subjects, and against the feature shifted in a circle by 10 s or more in each
run: it is as smooth and fires as often then, and has nothing to do with the EEG.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from evaluation.brain import LEVEL, BrainError, Study, Tracks, holm, t_tests
from evaluation.report import Progress
from evaluation.trf import Lags, Moments, fit, moments, predict, summed

SHORTEST_S = 10.0
REACH_S = 1.0
"""How far around a moment the envelope may predict a feature: the longest lag, and how far the EEG's filter smears."""
SLIGHT = 1e-3
"""Ridge of that prediction: none, but for what is singular."""
JOINT_RIDGES = tuple(10.0**power for power in range(0, 7))


@dataclass(frozen=True, eq=False)
class Baseline:
    """Envelope and onset alone: sums by run, the ridge, and the correlation [S] on test runs."""

    sums: dict[str, Moments]
    ridge: float
    r_S: Tensor


@dataclass(frozen=True, eq=False)
class Gains:
    """Of F features: the gain in correlation over envelope and onset [F, S], the t-test's p and Holm's, and the p of
    circular shifts for the correlation and for the gain. NaN where no shifts were made: of gains, where the t-tests
    already say that there is none."""

    gain_FS: Tensor
    t_F: Tensor
    adjusted_F: Tensor
    shift_r_F: Tensor
    shift_gain_F: Tensor
    null_r_FN: Tensor
    ridge: float

    @property
    def beyond_F(self) -> Tensor:
        """Whether a feature explains more than envelope and onset: by the t-test, and by shifts if there were any."""
        return (self.adjusted_F < LEVEL) & ~(self.shift_gain_F > LEVEL)


def baseline(study: Study, sound: Tracks, lags: Lags, ridge: float | None = None) -> Baseline:
    """Without `ridge` it is chosen; raises BrainError where there are too few development runs for that."""
    sums = study.moments({run: [sound[run][:1], sound[run][1:]] for run in study.runs}, lags)
    if ridge is None:
        ridge, _ = study.choose_ridge(sums)
    weights = study.fit(sums, study.development, ridge)
    return Baseline(sums, ridge, study.correlation(sums, study.test, weights)[0])


def gains(
    study: Study,
    tracks: Tracks,
    sound: Tracks,
    r_FS: Tensor,
    ridge: float,
    base: Baseline,
    lags: Lags,
    *,
    beside: float | None = None,
    shifts: int = 200,
    seed: int = 0,
    progress: Progress = iter,
) -> Gains:
    """Of features [F, T], whose correlations alone, with nothing taken off, are `r_FS`, fitted with `ridge`.
    `beside` is the ridge of a feature beside the envelope, which else is chosen.

    Raises:
        BrainError: a run is too short to be shifted.
    """
    rest = without(study, tracks, sound)
    stimuli = {run: [sound[run][:1], sound[run][1:], rest[run]] for run in study.runs}
    sums = study.moments(stimuli, lags)

    def banded(of_feature: float) -> Tensor:
        return torch.tensor([base.ridge] * (2 * lags.count) + [of_feature] * lags.count, dtype=torch.float64)

    if beside is None:
        beside, _ = study.choose_ridge(sums, banded)
    weights = study.fit(sums, study.development, banded(beside))
    gain_FS = study.correlation(sums, study.test, weights) - base.r_S
    t_F, p_F = t_tests(gain_FS)
    adjusted_F = holm(p_F)
    count = len(gain_FS)
    shift_r_F, shift_gain_F = (torch.full((count,), torch.nan, dtype=torch.float64) for _ in range(2))
    null_r_FN = torch.full((count, shifts), torch.nan, dtype=torch.float64)
    if shifts:
        amounts = draw_shifts(study, tracks, shifts, seed)
        for index in progress(list(range(count))):
            one = {run: tracks[run][index] for run in study.runs}
            alone = {run: circular_moments(one[run][None], study.eeg[run], lags, amounts[run][None]) for run in one}
            null_r_FN[index] = predicted(study, alone, ridge).mean(1)
            shift_r_F[index] = exceeded(r_FS[index].mean(), null_r_FN[index])
            if adjusted_F[index] < LEVEL:
                still = torch.zeros_like(next(iter(amounts.values())))
                both = {
                    run: circular_moments(
                        torch.stack([*cut(sound[run], rest[run]), rest[run][index]]),
                        study.eeg[run],
                        lags,
                        torch.stack([still, still, amounts[run]]),
                    )
                    for run in one
                }
                null_N = (predicted(study, both, banded(beside)) - base.r_S).mean(1)
                shift_gain_F[index] = exceeded(gain_FS[index].mean(), null_N)
    return Gains(gain_FS, t_F, adjusted_F, shift_r_F, shift_gain_F, null_r_FN, beside)


def without(study: Study, tracks: Tracks, sound: Tracks) -> dict[str, Tensor]:
    """Features less what envelope and onset up to `REACH_S` before and after predict of them, by least squares over all
    runs. (No EEG goes into it.)"""
    reach = round(REACH_S * study.rate)
    lags = Lags(-reach, 2 * reach + 1)
    length = {run: min(sound[run].shape[-1], tracks[run].shape[-1]) for run in study.runs}
    heard = {run: sound[run][:, : length[run]] for run in study.runs}
    features = {run: tracks[run][:, : length[run]].double() for run in study.runs}
    total = summed([moments(heard[run][:, None], features[run], lags) for run in study.runs])
    weights_KF = fit(total, SLIGHT)[0]
    return {run: features[run] - predict(weights_KF, heard[run], lags) for run in study.runs}


def predicted(study: Study, sums: dict[str, Moments], ridge: float | Tensor) -> Tensor:
    """[N, S]: on test runs, fitted on development runs."""
    return study.correlation(sums, study.test, study.fit(sums, study.development, ridge))


def exceeded(value: Tensor, null_N: Tensor) -> float:
    return float((1 + (null_N >= value).sum()) / (1 + len(null_N)))


def cut(sound_2T: Tensor, f_T: Tensor) -> Tensor:
    return sound_2T[:, : f_T.shape[-1]]


def draw_shifts(study: Study, tracks: Tracks, count: int, seed: int) -> dict[str, Tensor]:
    """{run: [N]} in samples, at least `SHORTEST_S` either way round; raises as `check_shifts`."""
    check_shifts(study)
    rng = np.random.default_rng(seed)
    least = round(SHORTEST_S * study.rate)
    found = {}
    for run in study.runs:
        length = min(study.eeg[run].shape[-1], tracks[run].shape[-1])
        found[run] = torch.from_numpy(rng.integers(least, max(length - least, least + 1), count))
    return found


def check_shifts(study: Study) -> None:
    """Raises BrainError for a run that is too short to be shifted."""
    for run, eeg_ST in study.eeg.items():
        seconds = eeg_ST.shape[-1] / study.rate
        if seconds <= 2 * SHORTEST_S:
            raise BrainError(
                f"run {run} lasts {seconds:.1f} s, too short to be shifted by {SHORTEST_S:g} s; pass --shifts 0"
            )


def circular_moments(stimuli_PT: Tensor, r_ST: Tensor, lags: Lags, shifts_PN: Tensor) -> Moments:
    """Sums for N models of P stimuli, each shifted in a circle by its [P, N] samples; lags, too, are in a circle.

    A shift moves cross-correlations and leaves their values: one FFT of each stimulus serves all shifts.
    """
    length = min(stimuli_PT.shape[-1], r_ST.shape[-1])
    stimuli_PT, r_ST = stimuli_PT[:, :length].double(), r_ST[:, :length].double()
    spectra_PK, r_SK = torch.fft.rfft(stimuli_PT), torch.fft.rfft(r_ST)
    lag_L = torch.arange(lags.first, lags.first + lags.count)
    count, models = shifts_PN.shape
    size = count * lags.count
    gram = stimuli_PT.new_empty(models, count, lags.count, count, lags.count)
    cross = stimuli_PT.new_empty(models, count, lags.count, len(r_ST))
    for p in range(count):
        meets_ST = torch.fft.irfft(spectra_PK[p].conj() * r_SK, length)
        cross[:, p] = meets_ST[:, (shifts_PN[p][:, None] + lag_L) % length].permute(1, 2, 0)
        for q in range(p, count):
            product_T = torch.fft.irfft(spectra_PK[p].conj() * spectra_PK[q], length)
            apart_NLL = (shifts_PN[p] - shifts_PN[q])[:, None, None] + lag_L[:, None] - lag_L
            block_NLL = product_T[apart_NLL % length]
            gram[:, p, :, q], gram[:, q, :, p] = block_NLL, block_NLL.transpose(1, 2)
    return Moments(
        length,
        gram.reshape(models, size, size),
        cross.reshape(models, size, -1),
        stimuli_PT.sum(-1).repeat_interleave(lags.count).expand(models, size),
        r_ST.sum(-1),
        r_ST.square().sum(-1),
    )


def joint(study: Study, tracks: Tracks, chosen: Sequence[int], sound: Tracks, base: Baseline, lags: Lags) -> Tensor:
    """[S]: correlation on test runs of one model of envelope, onset and all `chosen` features."""
    stimuli = {
        run: [sound[run][:1], sound[run][1:], *(tracks[run][one : one + 1] for one in chosen)] for run in study.runs
    }
    sums = study.moments(stimuli, lags)

    def banded(of_features: float) -> Tensor:
        return torch.tensor(
            [base.ridge] * (2 * lags.count) + [of_features] * (len(chosen) * lags.count), dtype=torch.float64
        )

    ridge, _ = study.choose_ridge(sums, banded, JOINT_RIDGES)
    return study.correlation(sums, study.test, study.fit(sums, study.development, banded(ridge)))[0]


def drift(study: Study, sound: Tracks, lags: Lags, parts: int = 3) -> list[float]:
    """Lag in seconds of the largest weight of the envelope's mean TRF, for each third of the runs: where audio and EEG
    run by different clocks it moves."""
    found = []
    for part in range(parts):

        def third(x_CT: Tensor, part: int = part) -> Tensor:
            edges = [round(x_CT.shape[-1] * share / parts) for share in (part, part + 1)]
            return x_CT[:, edges[0] : edges[1]]

        length = {run: min(study.eeg[run].shape[-1], sound[run].shape[-1]) for run in study.runs}
        piece = replace(study, eeg={run: third(study.eeg[run][:, : length[run]]) for run in study.runs})
        sums = piece.moments({run: [third(sound[run][:1, : length[run]])] for run in study.runs}, lags)
        trf_L = piece.fit(sums, study.runs, 1e3)[0].mean(1)
        found.append(float(lags.seconds(study.rate)[trf_L.abs().argmax()]))
    return found
