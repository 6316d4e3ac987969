"""Which features follow the EEG of listeners: the protocol of AudioSAE (arXiv 2602.05027v2, sections 3.5 and 4.8).

A feature's temporal response function (TRF, `evaluation.trf`) is fitted for each feature and subject alone. On the
development runs the lags are chosen at which the mean TRF over subjects is lowest and highest; on the test runs TRFs
are fitted anew, and one-sided t-tests over subjects ask whether the weight at the first lag is below 0 and at the
second above, with Holm's correction over all of these tests. The paper does not say how it chose the ridge: here it is
one for all features and subjects, by leaving out one development run at a time.

The t-tests say that a response exists, not how much of the EEG it explains: for that there is `Findings.r_FS`, the
correlation on the test runs of what the TRF of the development runs predicts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from evaluation.trf import RIDGES, Lags, Moments, correlation, fit, moments, summed
from hooks.errors import AudioSteerError, require

LEVEL = 0.05
FEATURES_AT_ONCE = 128

Tracks = Mapping[str, Tensor]
"""{run: [F, T]}, features over time at the rate of the EEG."""


class BrainError(AudioSteerError):
    """EEG, or a manifest of it, that cannot be used."""


@dataclass(frozen=True, eq=False)
class Study:
    """EEG of one channel: `eeg` {run: [S, T]} has the subjects `present[run]` (indices into `subjects`), at `rate` Hz.

    Raises:
        BrainError: fewer than two subjects that have runs of both splits, or a split without runs.
    """

    subjects: tuple[str, ...]
    eeg: Mapping[str, Tensor]
    present: Mapping[str, tuple[int, ...]]
    development: tuple[str, ...]
    test: tuple[str, ...]
    rate: float

    def __post_init__(self) -> None:
        for name, runs in (("dev", self.development), ("test", self.test)):
            if not runs:
                raise BrainError(f"no runs of split {name!r}; there must be some of dev and of test")
        both = [
            subject
            for index, subject in enumerate(self.subjects)
            if all(any(index in self.present[run] for run in runs) for runs in (self.development, self.test))
        ]
        if len(both) < 2:
            raise BrainError(
                f"t-tests over subjects need two or more with runs of split dev and of split test; there is "
                f"{len(both) or 'none'}"
            )
        if lacking := [subject for subject in self.subjects if subject not in both]:
            raise BrainError(f"subject {lacking[0]} has no runs of split dev, or none of split test; leave it out")

    @property
    def runs(self) -> tuple[str, ...]:
        return (*self.development, *self.test)

    def groups(self, runs: Sequence[str]) -> dict[tuple[str, ...], list[int]]:
        """Subjects by which of the runs they have: S'S is the same for those of a group."""
        found: dict[tuple[str, ...], list[int]] = {}
        for subject in range(len(self.subjects)):
            own = tuple(run for run in runs if subject in self.present[run])
            if own:
                found.setdefault(own, []).append(subject)
        return found

    def moments(self, stimuli: Mapping[str, Sequence[Tensor]], lags: Lags) -> dict[str, Moments]:
        """{run: sums} for models of the stimuli [F, T] or [1, T], each at all lags. A run ends with the shorter one of
        EEG and stimulus."""
        found = {}
        for run in self.runs:
            length = min(self.eeg[run].shape[-1], *(s_FT.shape[-1] for s_FT in stimuli[run]))
            models = max(len(s_FT) for s_FT in stimuli[run])
            parts = []
            for start in range(0, models, FEATURES_AT_ONCE):
                some = [s_FT if len(s_FT) == 1 else s_FT[start : start + FEATURES_AT_ONCE] for s_FT in stimuli[run]]
                some_PFT = torch.stack(torch.broadcast_tensors(*(s_FT[:, :length] for s_FT in some)))
                parts.append(moments(some_PFT, self.eeg[run][:, :length], lags))
            found[run] = beside(parts)
        return found

    def total(self, sums: Mapping[str, Moments], runs: Sequence[str], subjects: Sequence[int]) -> Moments:
        """Of subjects who have all of these runs."""
        return summed([sums[run].of([self.present[run].index(one) for one in subjects]) for run in runs])

    def fit(self, sums: Mapping[str, Moments], runs: Sequence[str], ridge: float | Tensor) -> Tensor:
        """Weights [F, K, S]."""
        models, size = next(iter(sums.values())).sums_FK.shape
        weights_FKS = torch.zeros(models, size, len(self.subjects), dtype=torch.float64)
        for own, subjects in self.groups(runs).items():
            weights_FKS[..., subjects] = fit(self.total(sums, own, subjects), ridge)
        return weights_FKS

    def correlation(self, sums: Mapping[str, Moments], runs: Sequence[str], weights_FKS: Tensor) -> Tensor:
        """[F, S], NaN for a subject without one of the runs."""
        r_FS = torch.full((len(weights_FKS), len(self.subjects)), torch.nan, dtype=torch.float64)
        for own, subjects in self.groups(runs).items():
            r_FS[:, subjects] = correlation(weights_FKS[..., subjects], self.total(sums, own, subjects))
        return r_FS

    def check_ridge(self) -> None:
        """Raises BrainError where no subject has two development runs, of which one could be left out."""
        if not any(len(runs) > 1 for runs in self.groups(self.development)):
            raise BrainError("the ridge is chosen by leaving out one dev run: give two runs of split dev, or --ridge")

    def choose_ridge(
        self,
        sums: Mapping[str, Moments],
        penalty: Callable[[float], float | Tensor] = lambda ridge: ridge,
        ridges: Sequence[float] = RIDGES,
    ) -> tuple[float, Tensor]:
        """The ridge with the best mean correlation over models and subjects on development runs left out one at a time,
        and that correlation by model [F]. `penalty` makes a fit's ridge of it.

        Raises:
            BrainError: no subject has two development runs.
        """
        whole = {run: tuple(sorted(self.present[run])) for run in self.development}
        self.check_ridge()
        best, best_F = ridges[0], torch.tensor([-torch.inf])
        for ridge in ridges:
            scores = []
            for left_out in whole:
                rest = [run for run in self.development if run != left_out]
                score_FS = self.correlation(sums, [left_out], self.fit(sums, rest, penalty(ridge)))
                fitted = [one for subjects in self.groups(rest).values() for one in subjects]
                scores.append(score_FS[:, sorted(set(fitted) & set(whole[left_out]))])
            score_F = torch.cat(scores, 1).mean(1)
            if score_F.mean() > best_F.mean():
                best, best_F = ridge, score_F
        return best, best_F


def beside(parts: Sequence[Moments]) -> Moments:
    """Sums of the same runs for one model after another."""
    first = parts[0]
    return replace(
        first,
        gram_FKK=torch.cat([one.gram_FKK for one in parts]),
        cross_FKC=torch.cat([one.cross_FKC for one in parts]),
        sums_FK=torch.cat([one.sums_FK for one in parts]),
    )


@dataclass(frozen=True, eq=False)
class Findings:
    """What the protocol says of F features.

    `lag_F2` (seconds), `t_F2`, `p_F2` (one-sided) and `adjusted_F2` (Holm) are of the lowest and of the highest
    weight. `trf_FLS`: TRFs of the test runs at `lags_L` seconds. `r_FS`: correlation on test runs of predictions by the
    TRFs of the development runs, and `left_out_F` the one with which the ridge was chosen.
    """

    lags_L: Tensor
    lag_F2: Tensor
    t_F2: Tensor
    p_F2: Tensor
    adjusted_F2: Tensor
    trf_FLS: Tensor
    r_FS: Tensor
    left_out_F: Tensor
    ridge: float

    @property
    def found_F(self) -> Tensor:
        return (self.adjusted_F2 < LEVEL).any(1)

    @property
    def side_F(self) -> Tensor:
        """0 where the negative weight is the surer one, 1 where the positive is."""
        return self.p_F2.argmin(1)

    def surer(self, values_F2: Tensor) -> Tensor:
        return values_F2.gather(1, self.side_F[:, None])[:, 0]


def protocol(study: Study, tracks: Tracks, lags: Lags, ridge: float | None = None) -> Findings:
    """The paper's protocol. Without `ridge` it is chosen on the development runs.

    Raises:
        BrainError: there are too few development runs to choose the ridge.
    """
    sums = study.moments({run: [tracks[run]] for run in study.runs}, lags)
    left_out_F = torch.full((len(next(iter(tracks.values()))),), torch.nan, dtype=torch.float64)
    if ridge is None:
        ridge, left_out_F = study.choose_ridge(sums)
    fitted_FLS = study.fit(sums, study.development, ridge)
    again_FLS = study.fit(sums, study.test, ridge)
    mean_FL = fitted_FLS.mean(-1)
    where_F2 = torch.stack([mean_FL.argmin(1), mean_FL.argmax(1)], 1)
    at_F2S = again_FLS.gather(1, where_F2[..., None].expand(-1, -1, again_FLS.shape[-1]))
    t_F2, p_F2 = t_tests(at_F2S * torch.tensor([-1.0, 1.0])[:, None].double())
    seconds_L = lags.seconds(study.rate)
    return Findings(
        lags_L=seconds_L,
        lag_F2=seconds_L[where_F2],
        t_F2=t_F2 * torch.tensor([-1.0, 1.0]),
        p_F2=p_F2,
        adjusted_F2=holm(p_F2.flatten()).view_as(p_F2),
        trf_FLS=again_FLS,
        r_FS=study.correlation(sums, study.test, fitted_FLS),
        left_out_F=left_out_F,
        ridge=ridge,
    )


def t_tests(values_S: Tensor) -> tuple[Tensor, Tensor]:
    """t [...] and one-sided p of a mean above 0, over the last axis; t 0 and p 1 where all values are the same."""
    stats = require("scipy.stats", "eeg")
    count = values_S.shape[-1]
    spread = values_S.std(-1)
    t = torch.where(spread > 0, values_S.mean(-1) / (spread / count**0.5).clamp(min=1e-300), 0)
    p = torch.from_numpy(stats.t.sf(t.numpy(), count - 1))
    return t, torch.where(spread > 0, p, 1.0)


def holm(p_N: Tensor) -> Tensor:
    """Holm's adjusted p: below a level where the hypothesis is rejected at that level, over all N tests."""
    order = p_N.argsort()
    factors = torch.arange(len(p_N), 0, -1, dtype=p_N.dtype)
    adjusted = (p_N[order] * factors).clamp(max=1).cummax(0).values
    return torch.empty_like(p_N).index_copy(0, order, adjusted)


# --- controls: the same protocol on stimuli that were not heard ---


def mismatched(study: Study, tracks: Tracks) -> dict[str, Tensor]:
    """Of each run the features of the one after it."""
    return {run: tracks[other] for run, other in zip(study.runs, study.runs[1:] + study.runs[:1], strict=True)}


def backwards(tracks: Tracks) -> dict[str, Tensor]:
    return {run: f_FT.flip(-1) for run, f_FT in tracks.items()}
