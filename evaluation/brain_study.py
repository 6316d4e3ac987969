"""What `steer evaluate brain` measures of an SAE: the protocol, how much a feature explains, and the controls.

Controls, each by the same protocol: an SAE with its first, untrained weights; the dimensions of the activation itself;
features of another run's sound, and features in reversed time, of which none should be found.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evaluation.atlas import Atlas
from evaluation.brain import LEVEL, BrainError, Findings, Study, Tracks, backwards, mismatched, protocol
from evaluation.brain_gain import Baseline, Gains, baseline, drift, gains, joint
from evaluation.feature_tracks import Frames, Resampling, acoustics, at_rate, by_maximum, encoded, frames_of
from evaluation.intervals import clustered_bootstrap
from evaluation.nulls import random_sae
from evaluation.report import Interval, Progress, Report, Row
from evaluation.trf import RIDGES, Lags
from hooks.clip import as_clip
from hooks.model import AudioModel, Source
from hooks.site import Site
from steer.sae import SAE
from steer.steered import SteeredModel

SAE_FEATURES = "SAE features"
SHOWN = 4
"""Features whose TRFs and maps are in the figure."""
FEW_SUBJECTS = 10


@dataclass(frozen=True, eq=False)
class Sounds:
    """Runs as the model and as the ear has them: activations, and envelope and onset {run: [2, T]}."""

    frames: dict[str, Frames]
    acoustics: dict[str, Tensor]
    rate: float
    resampling: Resampling

    @classmethod
    def of(
        cls,
        model: AudioModel,
        site: Site,
        runs: Mapping[str, Source],
        rate: float,
        resampling: Resampling,
        progress: Progress = iter,
    ) -> Sounds:
        """Raises AudioFileError for a sound that cannot be read, BrainError for a site without a frame rate."""
        frames, sound = {}, {}
        for run in progress(list(runs)):
            frames[run] = frames_of(model, site, runs[run])
            sound[run] = acoustics(as_clip(runs[run], model.sample_rate), frames[run].length_s, rate)
        return cls(frames, by_maximum(sound), rate, resampling)

    @property
    def lengths_s(self) -> dict[str, float]:
        return {run: one.length_s for run, one in self.frames.items()}

    def tracks(self, of_run: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """{run: [F, T]} at the rate of the EEG, over their maximum, from {run: [frames, F]}."""
        found = {}
        for run, f_TF in of_run.items():
            frames = self.frames[run]
            found[run] = at_rate(f_TF, frames.centre_T, frames.length_s, self.rate, self.resampling)
        return by_maximum(found)

    def dense(self) -> dict[str, Tensor]:
        return self.tracks({run: one.x_TD for run, one in self.frames.items()})

    def features(
        self, sae: Any, count: int | None, per_s: float, seed: int
    ) -> tuple[list[int], dict[str, Tensor], int]:
        """At most `count` features at random among those that fire in `per_s` frames a second or more, and how many of
        these there are.

        Raises:
            BrainError: none fires so often.
        """
        fires_F, seconds = torch.zeros(()), 0.0
        for frames in self.frames.values():
            fires_F = fires_F + (encoded(sae, frames) > 0).sum(0)
            seconds += frames.length_s
        eligible = torch.nonzero(fires_F >= max(per_s * seconds, 1))[:, 0].numpy()
        if not len(eligible):
            raise BrainError(f"no feature fires in {per_s:g} frames a second or more; pass a smaller --fires")
        chosen = eligible
        if count is not None and len(eligible) > count:
            chosen = np.sort(np.random.default_rng(seed).choice(eligible, count, replace=False))
        index = torch.from_numpy(chosen)
        some = {run: encoded(sae, frames, index) for run, frames in self.frames.items()}
        return [int(one) for one in chosen], self.tracks(some), len(eligible)


@dataclass(frozen=True)
class Settings:
    lags: Lags
    features: int | None = 1000
    fires: float = 1.0
    ridge: float | None = None
    shifts: int = 200
    joint: int = 50
    seed: int = 0


def evaluate(
    steered: SteeredModel,
    site: str,
    study: Study,
    sounds: Sounds,
    settings: Settings,
    atlas: Atlas | None = None,
    over_channels: Callable[[Tracks, Sequence[int], float], tuple[Sequence[str], Tensor]] | None = None,
    progress: Progress = iter,
) -> Report:
    """`over_channels` maps features at lags (indices) with a ridge: `brain_map.channel_map`.

    A row for each stimulus that was tested; `clips` has one for each feature.

    Raises:
        BrainError: no feature fires often enough, too few development runs, or runs too short for shifts.
    """
    sae = steered.saes[site]
    names, tracks, eligible = sounds.features(sae, settings.features, settings.fires, settings.seed)
    base = baseline(study, sounds.acoustics, settings.lags, settings.ridge)
    result = protocol(study, tracks, settings.lags, settings.ridge)
    found = torch.nonzero(result.found_F)[:, 0].tolist()
    gain = gains_of(study, tracks, result, found, sounds, base, settings, settings.shifts, progress)
    above = int((gain.shift_r_F <= LEVEL).sum()) if gain is not None and settings.shifts else None
    rows = [row_of(SAE_FEATURES, result, above, 0 if gain is None else int(gain.beyond_F.sum()))]
    for name, stimuli, beside in controls(sae, study, sounds, tracks, settings):
        own = protocol(study, stimuli, settings.lags, settings.ridge)
        own_found = torch.nonzero(own.found_F)[:, 0].tolist() if beside else []
        own_gain = gains_of(study, stimuli, own, own_found, sounds, base, settings, 0, iter)
        beyond = (0 if own_gain is None else int(own_gain.beyond_F.sum())) if beside else None
        rows.append(row_of(name, own, None, beyond))
    for index, name in enumerate(("envelope", "onset")):
        only = {run: sound_2T[index : index + 1] for run, sound_2T in sounds.acoustics.items()}
        rows.append(row_of(name, protocol(study, only, settings.lags, settings.ridge), None, None))
    rows.append(model_row("envelope and onset in one model", base.r_S))
    if best := best_of(result, settings):
        name = f"envelope, onset and the {len(best)} features that did best on dev runs, in one model"
        rows.append(model_row(name, joint(study, tracks, best, sounds.acoustics, base, settings.lags)))
    about: dict[str, Any] = {
        "model": steered.model.name,
        "site": site,
        "subjects": list(study.subjects),
        "runs": {"dev": list(study.development), "test": list(study.test)},
        "minutes of sound": round(sum(sounds.lengths_s.values()) / 60, 2),
        "features that fire often enough": eligible,
        "ridge": {SAE_FEATURES: result.ridge, "envelope and onset": base.ridge, "beside them": gain and gain.ridge},
        "t that the first of all tests has to reach": t_needed(study, len(names)),
        "envelope's lag in ms by third of the runs": [
            round(1000 * lag) for lag in drift(study, sounds.acoustics, settings.lags)
        ],
        "TRFs": shown(names, result, found),
        "notes": notes(study, result, gain, len(names)),
    }
    surest = surest_of(result, found)
    if over_channels is not None and surest:
        at = result.surer(result.lag_F2)[surest]
        where = [int((result.lags_L - lag).abs().argmin()) for lag in at]
        channels, t_FC = over_channels({run: f_FT[surest] for run, f_FT in tracks.items()}, where, result.ridge)
        maps = {str(names[index]): t_C.tolist() for index, t_C in zip(surest, t_FC, strict=True)}
        about["t by channel"] = {"channels": list(channels), "features": maps}
    clips = feature_rows(names, result, found, gain, labels_of(atlas))
    return Report(f"Features of {site} that follow the EEG", rows, clips, about)


def gains_of(
    study: Study,
    tracks: Tracks,
    result: Findings,
    found: Sequence[int],
    sounds: Sounds,
    base: Baseline,
    settings: Settings,
    shifts: int,
    progress: Progress,
) -> Gains | None:
    """Of the features that were found, or None where there are none."""
    if not found:
        return None
    some = {run: f_FT[list(found)] for run, f_FT in tracks.items()}
    return gains(
        study,
        some,
        sounds.acoustics,
        result.r_FS[list(found)],
        result.ridge,
        base,
        settings.lags,
        beside=settings.ridge,
        shifts=shifts,
        seed=settings.seed,
        progress=progress,
    )


def controls(
    sae: Any, study: Study, sounds: Sounds, tracks: Tracks, settings: Settings
) -> list[tuple[str, Tracks, bool]]:
    """(Name, stimuli, whether the gain over the envelope is measured)."""
    found: list[tuple[str, Tracks, bool]] = []
    if isinstance(sae, SAE):
        x_TD = torch.cat([frames.x_TD for frames in sounds.frames.values()])
        untrained = random_sae(sae, x_TD.mean(0).numpy(), settings.seed)
        try:
            _, random, _ = sounds.features(untrained, settings.features, settings.fires, settings.seed)
            found.append(("features of an untrained SAE", random, True))
        except BrainError:  # with its first threshold nothing may fire
            pass
    found.append(("dimensions of the activation", sounds.dense(), True))
    found.append((f"{SAE_FEATURES}, of another run's sound", mismatched(study, tracks), False))
    found.append((f"{SAE_FEATURES}, in reversed time", backwards(tracks), False))
    return found


def best_of(result: Findings, settings: Settings) -> list[int]:
    """Chosen on development runs, so that the test runs stay unseen."""
    if not settings.joint or not result.left_out_F.isfinite().all():
        return []
    return result.left_out_F.argsort(descending=True)[: settings.joint].tolist()


# --- what is said of it ---


def mean_over(study_values_S: Tensor) -> Interval:
    """Over subjects, who are resampled."""
    values = study_values_S.tolist()
    return clustered_bootstrap(values, list(range(len(values))))


def row_of(name: str, result: Findings, above: int | None, beyond: int | None) -> Row:
    found_F = result.found_F
    return {
        "stimulus": name,
        "tested": len(found_F),
        "found": int(found_F.sum()),
        "found, %": round(100 * float(found_F.double().mean()), 2),
        "r above 95 % of shifts": above,
        "beyond envelope and onset": beyond,
        "r of those found": mean_over(result.r_FS[found_F].mean(0)) if found_F.any() else None,
    }


def model_row(name: str, r_S: Tensor) -> Row:
    empty = dict.fromkeys(("tested", "found", "found, %", "r above 95 % of shifts", "beyond envelope and onset"))
    return {"stimulus": name, **empty, "r of those found": mean_over(r_S)}


def feature_rows(
    names: Sequence[int],
    result: Findings,
    found: Sequence[int],
    gain: Gains | None,
    labels: Mapping[int, str],
) -> list[Row]:
    """A row a feature, the surest first."""
    rows = []
    lag_F, t_F, p_F, adjusted_F = map(result.surer, (result.lag_F2, result.t_F2, result.p_F2, result.adjusted_F2))
    for index in p_F.argsort().tolist():
        row: Row = {"feature": names[index], "found": bool(result.found_F[index])}
        row |= {"lag in ms": round(1000 * float(lag_F[index]), 1), "t": number(t_F[index])}
        row |= {"p": number(p_F[index]), "Holm's p": number(adjusted_F[index])}
        for side, name in enumerate(("lowest", "highest")):
            row |= {
                f"{name}: lag in ms": round(1000 * float(result.lag_F2[index, side]), 1),
                f"{name}: t": number(result.t_F2[index, side]),
                f"{name}: Holm's p": number(result.adjusted_F2[index, side]),
            }
        row["r"] = number(result.r_FS[index].mean())
        if gain is not None and index in found:
            place = list(found).index(index)
            row |= {
                "r of 95 % of shifts is below": number(gain.null_r_FN[place].quantile(0.95)),
                "r, p by shifts": number(gain.shift_r_F[place]),
                "gain in r": number(gain.gain_FS[place].mean()),
                "gain, Holm's p": number(gain.adjusted_F[place]),
                "gain, p by shifts": number(gain.shift_gain_F[place]),
                "beyond envelope and onset": bool(gain.beyond_F[place]),
            }
        if names[index] in labels:
            row["labels"] = labels[names[index]]
        rows.append(row)
    return rows


def number(value: Tensor) -> float | None:
    """As JSON knows it."""
    return float(value) if math.isfinite(value) else None


def surest_of(result: Findings, found: Sequence[int]) -> list[int]:
    return sorted(found, key=lambda index: float(result.p_F2[index].min()))[:SHOWN]


def shown(names: Sequence[int], result: Findings, found: Sequence[int]) -> dict[str, Any]:
    """Mean and standard error over subjects of the surest TRFs on test runs."""
    trf = {
        str(names[index]): {
            "mean": result.trf_FLS[index].mean(1).tolist(),
            "error": (result.trf_FLS[index].std(1) / result.trf_FLS.shape[2] ** 0.5).tolist(),
        }
        for index in surest_of(result, found)
    }
    return {"lags in ms": (1000 * result.lags_L).tolist(), "features": trf}


def t_needed(study: Study, features: int) -> float:
    from scipy import stats

    return round(float(stats.t.isf(LEVEL / (2 * features), len(study.subjects) - 1)), 2)


def notes(study: Study, result: Findings, gain: Gains | None, features: int) -> list[str]:
    found = int(result.found_F.sum())
    said = [f"{found} of {features} features have a lag at which subjects agree (Holm, {LEVEL:g})"]
    if gain is not None:
        beyond = int(gain.beyond_F.sum())
        said.append(
            f"{beyond} of these {found} explain more than envelope and onset do"
            + ("" if beyond else ": what was found says no more than that the EEG follows the loudness of the sound")
        )
    if len(study.subjects) < FEW_SUBJECTS:
        said.append(
            f"{len(study.subjects)} subjects: the first of {2 * features} tests has to reach a t of "
            f"{t_needed(study, features):g}; that little is found does not say that little is there"
        )
    if result.ridge in (RIDGES[0], RIDGES[-1]):
        said.append(f"the ridge that was chosen, {result.ridge:g}, is the last of those that were tried")
    return said


def labels_of(atlas: Atlas | None) -> dict[int, str]:
    """{feature: the labels that it tells best}, with their AUROC."""
    found = {}
    for feature in range(atlas.d_sae if atlas else 0):
        assert atlas is not None
        if labels := atlas.feature(feature, 2).labels:
            found[feature] = ", ".join(f"{one.label} {one.auroc:.2f}" for one in labels)
    return found
