"""Features of the SAEs at all sites of a model, a vector for each clip, in one pass of each clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from evaluation.ablation import Explained, check_explained
from evaluation.dataset import LabelledSound
from evaluation.passes import OFTEN, Kept
from evaluation.report import Progress
from hooks.capture import Recorder
from steer.steered import SteeredModel

ENOUGH = 10
"""Clips to see whether an SAE explains its site."""


@dataclass(frozen=True)
class SiteFeatures:
    """Features [N, F] of the SAE at one site: of each clip the mean and the maximum over the frames that hold sound."""

    mean_NF: np.ndarray
    max_NF: np.ndarray


@torch.no_grad()
def site_features(
    steered: SteeredModel,
    sites: Sequence[str],
    clips: Sequence[LabelledSound],
    kept: Kept | None = None,
    progress: Progress = iter,
) -> dict[str, SiteFeatures]:
    """{site: features}. Clips that are in `kept` are not passed again. Memory: 8 bytes for each clip, feature and site.

    Raises:
        ConceptError: an SAE explains nothing of its site.
        AudioFileError: a clip that cannot be read.
    """
    kept = kept or Kept(None, "")
    explained = {site: Explained(steered.saes[site]) for site in sites}
    names = [
        clip.name if isinstance(clip.source, str | Path) else f"{index}: {clip.name}"
        for index, clip in enumerate(clips)
    ]
    missing = [
        (name, clip)
        for name, clip in zip(names, clips, strict=True)
        if any(f"{site}/{name}" not in kept.known for site in sites)
    ]
    for number, (name, clip) in enumerate(progress(missing) if missing else (), 1):
        audio_BCN = steered.model.prepare(clip.source)
        with Recorder(steered.model.module, [steered.sites[site] for site in sites]) as recorder:
            steered.model.pass_through(audio_BCN)
            taken = recorder.take()
        for site, x_BTD in taken.items():
            f_NF = explained[site](x_BTD).flatten(0, 1).float()
            kept.known[f"{site}/{name}"] = torch.stack([f_NF.mean(0), f_NF.amax(0)]).cpu()
        if number % OFTEN == 0 or number == len(missing):
            # before it is kept; of few clips beside others that are kept it says nothing
            for site in sites if number >= ENOUGH or len(missing) == len(clips) else ():
                check_explained(steered, site, explained[site])
            kept.write()
    both = {site: torch.stack([kept.known[f"{site}/{name}"] for name in names]).numpy() for site in sites}
    return {site: SiteFeatures(f_N2F[:, 0], f_N2F[:, 1]) for site, f_N2F in both.items()}
