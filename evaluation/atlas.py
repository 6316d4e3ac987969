"""`Atlas`: what the features of an SAE mean, by where they fire most and by the labels that they tell.

One file for each SAE: safetensors, with the names of clips and labels as JSON in its metadata. `atlas_build` makes one.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors import safe_open
from torch import Tensor

from evaluation.report import Report
from hooks.errors import AudioSteerError, one_line
from hooks.files import UNWRITABLE, write_tensors
from hooks.weights import UNREADABLE
from steer import starter
from steer.feature_ids import check_features


class AtlasError(AudioSteerError):
    """An atlas that cannot be made or read, or that does not know a label."""


@dataclass(frozen=True)
class Effect:
    """What ablating the feature that tells a label best does: the share of the label's read-out that is lost (1: clips
    with the label are read as all others are), the share that is lost without another feature, and the share of the
    clips of which a recogniser then writes other words; see `atlas_effects`."""

    feature: int
    lost: float
    control: float
    words: float | None = None


@dataclass(frozen=True)
class Concept:
    """A label, such as kind `speaker` and value `theo`: how many clips have it, and how many have not.

    Of kind `interval` it is the stretches between the bounds of intervals that are counted. `chance` is the AUROC that
    the best of all features stays under in 95 % of shuffles of the labels; None, as the AUROC, with fewer than two of
    either. `picked` is the AUROC, on one half of the clips, of the feature that is best on the other half: the mean of
    both ways, free of the choice among many features. None where a half lacks clips, or in atlases made without it.
    """

    kind: str
    value: str
    positives: int
    others: int
    chance: float | None
    picked: float | None = None
    effect: Effect | None = None

    @property
    def name(self) -> str:
        return f"{self.kind}:{self.value}"


@dataclass(frozen=True)
class Match:
    """How well a feature tells a label."""

    label: str
    auroc: float
    positives: int
    others: int
    chance: float


@dataclass(frozen=True)
class Peak:
    """Where a feature fires: the clip, the moment in it (None at sites without a frame rate) and how high."""

    clip: str
    at_s: float | None
    value: float


@dataclass(frozen=True)
class Meaning:
    """What is known of one feature; it is silent if its density is 0."""

    feature: int
    density: float
    mean: float
    max: float
    labels: list[Match]
    peaks: list[Peak]


@dataclass(eq=False)
class Contents:
    """Everything in an atlas but its tensors. `about`: how it was made."""

    model: str
    sae: str
    site: str
    frames: int
    clips: list[str]
    concepts: list[Concept]
    about: dict[str, Any]


@dataclass(eq=False)
class Atlas(Contents):
    """`density` [F]: share of frames where a feature is above 0; `mean` and `max` [F] over all frames.

    `peak_value`, `peak_clip` (an index into `clips`, -1 for no peak) and `peak_s` (seconds, NaN where the time is not
    known) [F, K]: where it is highest, the highest first. `auroc` [C, F]: for each of the `concepts`, NaN where it has
    too few clips.
    """

    density: Tensor
    mean: Tensor
    max: Tensor
    peak_value: Tensor
    peak_clip: Tensor
    peak_s: Tensor
    auroc: Tensor

    @property
    def d_sae(self) -> int:
        return len(self.density)

    @property
    def silent(self) -> list[int]:
        """The features that never fire."""
        return (self.density == 0).nonzero()[:, 0].tolist()

    # --- looking up ---

    def feature(self, feature: int, labels: int = 5) -> Meaning:
        """One feature, with its best labels: those whose AUROC is farthest above what chance reaches.

        Raises:
            EditError: no such feature.
        """
        check_features([feature], self.d_sae)
        above_C = self.above_chance()[:, feature]
        best = above_C.argsort(descending=True, stable=True)[:labels]
        return self._meaning(feature, best[above_C[best] > -math.inf].tolist())

    def clearest(self, top: int) -> list[Meaning]:
        """The features whose best label is farthest above chance; without any labels, those that peak highest."""
        above_CF = self.above_chance()
        order_F = above_CF.amax(0) if len(above_CF) and above_CF.isfinite().any() else self.max
        return [self.feature(feature) for feature in self._firing(order_F, top)]

    def by_label(self, label: str, top: int) -> list[Meaning]:
        """The features that tell a label best, each with this label only; `dog_bark`, or in full `label:dog_bark`.

        Raises:
            AtlasError: no such label, one that there are several kinds of, or one with too few clips for an AUROC.
        """
        concept = self.concept(label)
        if self.concepts[concept].chance is None:
            raise AtlasError(f"{self.concepts[concept].name}: too few clips with or without it for an AUROC")
        return [self._meaning(feature, [concept]) for feature in self._firing(self.auroc[concept], top)]

    def concept(self, label: str) -> int:
        """Index of the concept of that name, or of that value if only one kind has it; raises as `by_label`."""
        names = [concept.name for concept in self.concepts]
        if label in names:
            return names.index(label)
        found = [index for index, concept in enumerate(self.concepts) if concept.value == label]
        if len(found) > 1:
            raise AtlasError(f"label {label!r} is one of {', '.join(names[index] for index in found)}: say which")
        if not found:
            some = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "") or "none"
            raise AtlasError(f"the atlas has no label {label!r}; it has {some}")
        return found[0]

    def above_chance(self) -> Tensor:
        """AUROC less chance [C, F]; -inf where there is none."""
        chance_C = torch.tensor([math.nan if c.chance is None else c.chance for c in self.concepts])
        return (self.auroc - chance_C[:, None]).nan_to_num(nan=-math.inf)

    def _firing(self, order_F: Tensor, top: int) -> list[int]:
        firing = (self.density > 0).nonzero()[:, 0]
        return firing[order_F[firing].argsort(descending=True, stable=True)[:top]].tolist()

    def _meaning(self, feature: int, concepts: Sequence[int]) -> Meaning:
        matches = []
        for index in concepts:
            concept = self.concepts[index]
            assert concept.chance is not None
            auroc = float(self.auroc[index, feature])
            matches.append(Match(concept.name, auroc, concept.positives, concept.others, concept.chance))
        columns = (self.peak_clip[feature], self.peak_s[feature], self.peak_value[feature])
        peaks = [
            Peak(self.clips[clip], None if math.isnan(at_s) else at_s, value)
            for clip, at_s, value in zip(*(column.tolist() for column in columns), strict=True)
            if clip >= 0
        ]
        density, mean, highest = (float(values_F[feature]) for values_F in (self.density, self.mean, self.max))
        return Meaning(feature, density, mean, highest, matches, peaks)

    # --- tables ---

    def report(self) -> Report:
        """A row for each label: the feature that tells it best on all clips, its AUROC there, the AUROC of a feature
        that was picked on the other half of the clips, and what the best of all stays under by chance."""
        rows = []
        for concept, auroc_F in zip(self.concepts, self.auroc, strict=True):
            known = concept.chance is not None
            rows.append(
                {
                    "label": concept.name,
                    "clips": concept.positives,
                    "others": concept.others,
                    "feature": int(auroc_F.argmax()) if known else None,
                    "AUROC": float(auroc_F.max()) if known else None,
                    "picked on the other half": concept.picked,
                    "chance": concept.chance,
                    **effect_cells(concept.effect),
                }
            )
        if not any(concept.effect for concept in self.concepts):
            rows = [{name: value for name, value in row.items() if name not in EFFECTS} for row in rows]
        about = {"model": self.model, "sae": self.sae, "site": self.site, **self.about}
        return Report(f"The feature that tells a label best ({self.summary()})", rows, about=about)

    def table(self, meanings: Sequence[Meaning], shown: int = 3) -> Report:
        """A row for each feature, with at most `shown` of its labels and peaks."""
        rows = []
        for one in meanings:
            labels = [f"{m.label} {m.auroc:.2f} ({m.positives}; shuffled {m.chance:.2f})" for m in one.labels[:shown]]
            peaks = [peak.clip + ("" if peak.at_s is None else f" {peak.at_s:.2f} s") for peak in one.peaks[:shown]]
            rows.append(
                {
                    "feature": one.feature,
                    "density": f"{one.density:.2%}" if one.density else "silent",
                    "mean": one.mean,
                    "max": one.max,
                    "labels: AUROC (clips)": "\n".join(labels if one.density else []),
                    "fires most at": "\n".join(peaks),
                }
            )
        return Report(f"Features ({self.summary()})", rows)

    def summary(self) -> str:
        """In a few words."""
        sae = f"{self.sae or 'an SAE'} at {self.site}"
        return f"{sae}: {self.d_sae} features, {len(self.silent)} silent in {len(self.clips)} clips"

    # --- the file ---

    def save(self, path: str | Path) -> Path:
        """Raises AtlasError if it cannot be written."""
        contents = Contents(**{one.name: getattr(self, one.name) for one in fields(Contents)})
        try:
            write_tensors(path, {name: getattr(self, name) for name in _tensors()}, atlas=asdict(contents))
        except UNWRITABLE as error:
            raise AtlasError(f"{path}: the atlas could not be written ({error})") from error
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Atlas:
        """Read a file, or the one that ships with an SAE such as `starter:codec/latent`.

        Raises:
            AtlasError: there is none, or it is damaged.
            SAEError: there is no such SAE.
        """
        path = starter.atlas_file(str(path)) if starter.is_sae_name(str(path)) else path
        if not os.path.isfile(path):
            raise AtlasError(f"{path}: no such atlas; make one with steer features --atlas {path} --audio DIR")
        try:
            with safe_open(str(path), "pt") as file:
                contents = TypeAdapter(Contents).validate_json((file.metadata() or {})["atlas"], strict=True)
                tensors = {name: file.get_tensor(name) for name in _tensors()}
            atlas = cls(**vars(contents), **tensors)
            atlas._check()
        except UNREADABLE as error:
            raise AtlasError(f"{path}: not an atlas, or a damaged one ({one_line(error)})") from error
        return atlas

    def check_fits(self, site: str, d_sae: int) -> None:
        """Raises AtlasError if it is not of an SAE with so many features at that site."""
        if (self.site, self.d_sae) != (site, d_sae):
            raise AtlasError(f"the atlas is of {self.d_sae} features at {self.site}, the SAE has {d_sae} at {site}")

    def _check(self) -> None:
        size, peaks = self.peak_value.shape
        fits = all(values_F.shape == (size,) for values_F in (self.density, self.mean, self.max))
        fits &= self.peak_clip.shape == self.peak_s.shape == (size, peaks)
        if not (fits and self.auroc.shape == (len(self.concepts), size)):
            raise ValueError("its parts do not fit together")
        if (self.peak_clip >= len(self.clips)).any():
            raise ValueError("it names clips that it does not list")


EFFECTS = ("read-out lost without it", "without another", "transcripts changed")


def effect_cells(effect: Effect | None) -> dict[str, float | None]:
    return dict(zip(EFFECTS, (effect.lost, effect.control, effect.words) if effect else (None,) * 3, strict=True))


def _tensors() -> list[str]:
    return [field.name for field in fields(Atlas) if field.type == "Tensor"]
