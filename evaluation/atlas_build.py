"""Making an `Atlas`: one pass of a model over labelled sounds.

Density, mean and peaks are those of frames that hold sound: what a model's window is padded with does not count.

For labels a clip counts by the mean of a feature over its frames (not by the maximum, which is higher in longer clips
whatever they hold); AUROC compares the clips that have a label with all others, also with those that have no label of
that kind: a feature that fires most on speech does not tell a bark, though no speech is labelled as a sound. Where
intervals are known, a clip is cut at their bounds, and the stretches inside an interval are compared with all others.

Memory holds the activations of one stretch of sound, and n_clips * d_sae * 4 bytes for each SAE (5,000 clips and 16,384
features: 330 MB), as much again for the stretches of clips with intervals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from evaluation.atlas import Atlas, AtlasError, Concept
from evaluation.auroc import auroc, best_by_chance
from evaluation.dataset import LabelledSound, LabelledSpan
from hooks.attach import attach
from hooks.capture import capture
from hooks.errors import SiteError
from hooks.site import Site
from hooks.timing import current_time, real_frames
from steer.sae import EncodesAndDecodes
from steer.steered import SteeredModel

MIN_CLIPS = 2
"""With and without a label: of fewer there is no AUROC."""
SHUFFLES, CHANCE = 200, 0.95
"""How often labels are shuffled, and the share of the shuffles in which the best feature stays under chance."""


@torch.no_grad()
def build(
    steered: SteeredModel,
    sounds: Sequence[LabelledSound],
    *,
    peaks: int = 10,
    stretch_s: float = 30.0,
    progress: Callable[[list[Any]], Iterable[Any]] = iter,
) -> dict[str, Atlas]:
    """An atlas for the SAE at each site, with the `peaks` highest peaks of every feature.

    Sounds run through the model in stretches of `stretch_s` seconds. A stretch's highest frame is a peak, unless the
    stretch before or after has a higher one (or before, one as high) nearer than `stretch_s`: so a short clip has one
    peak, and those of a long one are that far apart.

    Raises:
        AtlasError: there are no sounds, or none of them fills a frame, or features that are not finite.
        SiteError: a site that the model does not pass.
        AudioFileError: a sound cannot be read.
    """
    if not sounds:
        raise AtlasError("an atlas needs sounds, and there are none")
    listeners = {name: Listener(site, steered.saes[name]) for name, site in steered.sites.items()}
    statistics: dict[str, Statistics] = {}
    with ExitStack() as stack:
        for listener in listeners.values():
            stack.enter_context(attach(steered.model.module, listener.site, listener))
        for index, sound in enumerate(progress(list(sounds))):
            for _ in capture(steered.model, [sound.source], [], stretch_s):
                for name, listener in listeners.items():
                    heard = listener.take()
                    if heard is None:
                        continue
                    f_TF, t_T = heard
                    if not f_TF.isfinite().all():
                        raise AtlasError(f"{sound.name}: the features at {name} are not finite")
                    if name not in statistics:
                        statistics[name] = Statistics(len(sounds), f_TF.shape[1], peaks, stretch_s)
                    timed = listener.site.frame_rate is not None
                    statistics[name].add(f_TF, t_T, sound.intervals if timed else None)
            for one in statistics.values():
                one.end_sound(index)
    silent = [name for name in listeners if name not in statistics]
    if silent:
        raise AtlasError(f"no frame at {silent[0]} holds any sound")
    about = {"peaks at least (s) apart": stretch_s, "pooling of clips": "mean"}
    return {name: atlas_of(one, steered.model.name, name, sounds, about) for name, one in statistics.items()}


class Listener:
    """The features of what passes at a site, of frames that hold sound, and when these are."""

    def __init__(self, site: Site, sae: EncodesAndDecodes) -> None:
        self.site, self.sae = site, sae
        self._passed = False
        self._heard: list[tuple[Tensor, Tensor]] = []

    def __call__(self, x_BTD: Tensor) -> None:
        rate = self.site.frame_rate
        self._passed = True
        rows, frames = len(x_BTD), real_frames(x_BTD.shape[1], rate)
        if not frames:
            return
        f_TF = self.sae.encode(x_BTD[:, :frames].flatten(0, 1)).float()
        t_T = (torch.arange(frames, dtype=torch.float64) + 0.5) / (rate or torch.nan) + (current_time() or 0.0)
        self._heard.append((f_TF, t_T.repeat(rows)))

    def take(self) -> tuple[Tensor, Tensor] | None:
        """Features [T, F] and times [T] in seconds (NaN without a frame rate) since the last call; None: no sound.

        Raises:
            SiteError: the site was not passed.
        """
        if not self._passed:
            raise SiteError(f"site {self.site.name!r} was not passed: the model's forward does not call its module")
        heard, self._heard, self._passed = self._heard, [], False
        if not heard:
            return None
        features, times = zip(*heard, strict=True)
        return torch.cat(features), torch.cat(times)


class Statistics:
    """What is kept of an SAE's features, sound by sound."""

    def __init__(self, sounds: int, d_sae: int, peaks: int, apart_s: float) -> None:
        self.apart_s = apart_s
        self.frames = 0
        self.fires_F, self.total_F = (torch.zeros(d_sae, dtype=torch.float64) for _ in range(2))
        self.pooled_NF = torch.zeros(sounds, d_sae)
        self.peak_KF = torch.zeros(peaks, d_sae)
        self.clip_KF = torch.full((peaks, d_sae), -1, dtype=torch.int32)
        self.at_KF = torch.full((peaks, d_sae), torch.nan, dtype=torch.float64)
        self.segments: list[tuple[frozenset[str], Tensor, int]] = []
        self._begin()

    def _begin(self) -> None:
        self._spans: tuple[LabelledSpan, ...] | None = None
        self._tops: list[tuple[Tensor, Tensor]] = []
        self._sum_SF: Tensor | int = 0
        self._count_S: Tensor | int = 0

    def add(self, f_TF: Tensor, t_T: Tensor, spans: tuple[LabelledSpan, ...] | None) -> None:
        """A stretch of the present sound, which has these intervals."""
        self._spans = spans
        top_F, index_F = f_TF.max(0)
        self._tops.append((top_F.cpu(), t_T[index_F.cpu()]))
        self.fires_F += (f_TF > 0).sum(0).cpu()
        bounds = bounds_of(spans)
        part_T = torch.bucketize(t_T, torch.tensor(bounds, dtype=torch.float64), right=True)
        part_TS = one_hot(part_T, len(bounds) + 1).to(f_TF)
        self._sum_SF = self._sum_SF + (part_TS.T @ f_TF).cpu().double()
        self._count_S = self._count_S + part_TS.sum(0).cpu().double()

    def end_sound(self, index: int) -> None:
        """All that was added since the last end is the sound of that index."""
        if isinstance(self._sum_SF, Tensor) and isinstance(self._count_S, Tensor):
            sum_F, frames = self._sum_SF.sum(0), self._count_S.sum()
            self.frames += int(frames)
            self.total_F += sum_F
            self.pooled_NF[index] = (sum_F / frames).float()
            if self._spans is not None:
                mean_SF = (self._sum_SF / self._count_S[:, None]).float()
                labels = labels_between(self._spans)
                self.segments += [(labels[s], mean_SF[s], index) for s in self._count_S.nonzero()[:, 0].tolist()]
            self._keep_peaks(index, *(torch.stack(column) for column in zip(*self._tops, strict=True)))
        self._begin()

    def _keep_peaks(self, index: int, value_SF: Tensor, at_SF: Tensor) -> None:
        near = at_SF[1:] - at_SF[:-1] < self.apart_s
        later_wins = value_SF[1:] > value_SF[:-1]
        lost_SF = torch.zeros_like(value_SF, dtype=torch.bool)
        lost_SF[:-1] |= near & later_wins
        lost_SF[1:] |= near & ~later_wins
        clip_SF = torch.full_like(value_SF, index, dtype=torch.int32)
        value_KF = torch.cat([self.peak_KF, value_SF.masked_fill(lost_SF, 0)])
        # stable: of equal peaks the first sound's counts, and zeros never take the place of an empty one
        order_KF = value_KF.argsort(dim=0, descending=True, stable=True)[: len(self.peak_KF)]
        self.peak_KF = value_KF.gather(0, order_KF)
        self.clip_KF = torch.cat([self.clip_KF, clip_SF]).gather(0, order_KF)
        self.at_KF = torch.cat([self.at_KF, at_SF]).gather(0, order_KF)


def bounds_of(spans: Iterable[LabelledSpan] | None) -> list[float]:
    """Where a sound is cut, in seconds."""
    return sorted({bound for start_s, end_s, _ in spans or () for bound in (start_s, end_s)})


def labels_between(spans: Sequence[LabelledSpan]) -> list[frozenset[str]]:
    """What is heard before, between and after the bounds."""
    bounds = bounds_of(spans)
    heard = [frozenset(label for start_s, end_s, label in spans if start_s <= bound < end_s) for bound in bounds]
    return [frozenset(), *heard]


def atlas_of(one: Statistics, model: str, site: str, sounds: Sequence[LabelledSound], about: dict[str, Any]) -> Atlas:
    concepts: list[Concept] = []
    scores = [torch.zeros(0, one.pooled_NF.shape[1])]
    for kind in dict.fromkeys(kind for sound in sounds for kind in sound.labels):
        labels = [frozenset([value] if (value := sound.labels.get(kind)) else []) for sound in sounds]
        found, auroc_CF = matched(kind, labels, one.pooled_NF, range(len(sounds)))
        concepts += found
        scores.append(auroc_CF)
    if one.segments:
        labels, means, clips = map(list, zip(*one.segments, strict=True))
        found, auroc_CF = matched("interval", labels, torch.stack(means), clips)
        concepts += found
        scores.append(auroc_CF)
    return Atlas(
        model=model,
        sae="",
        site=site,
        frames=one.frames,
        clips=[sound.name for sound in sounds],
        concepts=concepts,
        about=about,
        density=(one.fires_F / one.frames).float(),
        mean=(one.total_F / one.frames).float(),
        max=one.peak_KF[0],
        peak_value=one.peak_KF.T,
        peak_clip=one.clip_KF.T,
        peak_s=one.at_KF.T.float(),
        auroc=torch.cat(scores),
    )


def matched(
    kind: str, labels: Sequence[frozenset[str]], scores_NF: Tensor, clips: Sequence[int]
) -> tuple[list[Concept], Tensor]:
    """The values of one kind of label, and the AUROC [C, F] of all features for each; `clips`: of which each row is."""
    values = sorted(frozenset().union(*labels))
    members_CN = torch.tensor([[value in some for some in labels] for value in values], dtype=torch.bool)
    members_CN = members_CN.reshape(len(values), len(labels))
    positives = members_CN.sum(1).tolist()
    auroc_CF = auroc(scores_NF, members_CN).float()
    picked = picked_on_halves(scores_NF, members_CN, halves(labels, clips))
    counts = sorted({p for p in positives if min(p, len(labels) - p) >= MIN_CLIPS})
    chances = best_by_chance(scores_NF, counts, SHUFFLES).quantile(CHANCE, dim=1).tolist() if counts else []
    chance = dict(zip(counts, chances, strict=True))
    concepts = []
    for index, (value, count) in enumerate(zip(values, positives, strict=True)):
        if count not in chance:
            auroc_CF[index] = torch.nan
        concepts.append(Concept(kind, value, count, len(labels) - count, chance.get(count), picked[index]))
    return concepts, auroc_CF


def halves(labels: Sequence[frozenset[str]], clips: Sequence[int]) -> Tensor:
    """Which rows [N] are in the second half: whole clips, every other one of those with the same labels."""
    of_clip: dict[int, set[str]] = {}
    for some, clip in zip(labels, clips, strict=True):
        of_clip.setdefault(clip, set()).update(some)
    ordered = sorted(of_clip, key=lambda clip: sorted(of_clip[clip]))
    second = set(ordered[1::2])
    return torch.tensor([clip in second for clip in clips], dtype=torch.bool)


def picked_on_halves(scores_NF: Tensor, members_CN: Tensor, second_N: Tensor) -> list[float | None]:
    """The AUROC of each class on one half of the rows by the column that is best on the other, mean of both ways.

    None where a half has rows of one kind only.
    """
    first_CF, second_CF = (auroc(scores_NF[half_N], members_CN[:, half_N]) for half_N in (~second_N, second_N))
    rows_C = torch.arange(len(members_CN))
    both_C = (second_CF[rows_C, first_CF.argmax(1)] + first_CF[rows_C, second_CF.argmax(1)]) / 2
    return [None if math.isnan(value) else value for value in both_C.tolist()]
