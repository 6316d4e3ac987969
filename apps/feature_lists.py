"""The features of sounds, and which of them are strongest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from apps.atlas import label_of
from evaluation.atlas import Atlas
from hooks import capture
from hooks.model import Source
from steer.steered import SteeredModel


def features_of(steered: SteeredModel, source: Source, sites: Sequence[str] | None = None) -> dict[str, Tensor]:
    """All features of a sound, {site: [T, d_sae]}, of the given sites or all; the model runs on stretches of it."""
    (features,) = features_of_all(steered, [source], sites)
    return features


def features_of_all(
    steered: SteeredModel, sources: Sequence[Source], sites: Sequence[str] | None = None
) -> list[dict[str, Tensor]]:
    """The same of several; those of equal length run beside each other."""
    pieces: dict[str, list[Tensor]] = {}
    found: list[dict[str, Tensor]] = []
    for captured in capture(steered.model, sources, list(sites or steered.sites), batch=len(sources)):
        for site, x_BTD in captured.activations.items():
            with torch.no_grad():
                pieces.setdefault(site, []).append(steered.saes[site].encode(x_BTD)[0].float().cpu())
        if captured.last:
            found.append({site: torch.cat(some) for site, some in pieces.items()})
            pieces = {}
    return found


def lists_of(
    steered: SteeredModel, name: str, features: Mapping[str, Tensor], top: int, atlas: Atlas | None
) -> list[dict[str, Any]]:
    """The strongest features at each site, with their labels if there is an atlas."""
    lists = []
    for site, f_TF in features.items():
        rows = strongest(f_TF, steered.sites[site].frame_rate, top)
        lists.append({"file": name, "site": site, "features": labelled(rows, atlas, site, f_TF.shape[1])})
    return lists


def strongest(f_TF: Tensor, frame_rate: float | None, top: int) -> list[dict[str, Any]]:
    """The features with the largest mean: their share of frames, and how high and when (in seconds) they peak."""
    mean_F = f_TF.mean(0)
    share_F = (f_TF > 0).float().mean(0)
    peak_F, when_F = f_TF.max(0)
    return [
        {
            "feature": feature,
            "mean": float(mean_F[feature]),
            "share": float(share_F[feature]),
            "peak": float(peak_F[feature]),
            "peak_s": (int(when_F[feature]) + 0.5) / frame_rate if frame_rate else None,
        }
        for feature in mean_F.topk(min(top, len(mean_F))).indices.tolist()
        if mean_F[feature] > 0
    ]


def labelled(rows: list[dict[str, Any]], atlas: Atlas | None, site: str, d_sae: int) -> list[dict[str, Any]]:
    """The same with each feature's best label.

    Raises:
        AtlasError: the atlas is of another SAE.
    """
    if atlas is None:
        return rows
    atlas.check_fits(site, d_sae)
    return [{**row, **label_of(atlas, row["feature"])} for row in rows]
