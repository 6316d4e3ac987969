"""What tells clips without speech from those with it, at each site: features, and the activation itself."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evaluation.ablation import Explained, Pool, run
from evaluation.auroc import auroc
from evaluation.report import Progress
from evaluation.transcripts import Clips, FalseAlarmError
from hooks import attach
from steer.steered import SteeredModel


@dataclass(frozen=True)
class Separation:
    """What the training clips tell of a site: features that fire, how they and the activation differ, and the mean
    features of each clip."""

    live: Tensor
    auroc_F: Tensor
    difference_F: Tensor
    direction_D: Tensor
    features_NF: Tensor

    def shift(self, count: int) -> Tensor:
        vector_F = torch.zeros_like(self.difference_F)
        chosen = self._best((self.auroc_F - 0.5).abs(), count)
        vector_F[chosen] = self.difference_F[chosen]
        return vector_F

    def scale(self, count: int) -> Tensor:
        mask_F = torch.zeros_like(self.difference_F)
        chosen = self._best(self.auroc_F, count)
        mask_F[chosen[self.auroc_F[chosen] > 0.5]] = 1.0
        return mask_F

    def _best(self, score_F: Tensor, count: int) -> Tensor:
        # few clips make many ties: the larger difference goes first
        by_size = self.live[self.difference_F[self.live].abs().argsort(descending=True, stable=True)]
        return by_size[score_F[by_size].argsort(descending=True, stable=True)][:count]


@torch.no_grad()
def separate(steered: SteeredModel, clips: Clips, progress: Progress = iter) -> dict[str, Separation]:
    """One pass over the clips, all sites at once; kept is a mean of a clip's features and of its activation.

    Raises:
        FalseAlarmError: no feature of an SAE fires, or it explains nothing of its site.
    """
    explained = {site: Explained(sae) for site, sae in steered.saes.items()}
    pools = {site: (Pool(one, explained[site]), Pool(one)) for site, one in steered.sites.items()}
    means: dict[str, tuple[list[Any], list[Any]]] = {site: ([], []) for site in pools}
    for clip in progress(clips.all):
        with ExitStack() as stack:
            for site, both in pools.items():
                for pool in both:
                    stack.enter_context(attach(steered.model.module, steered.sites[site], pool))
            run(steered, steered.model.prepare(clip.source))
        for site, both in pools.items():
            for pool, rows in zip(both, means[site], strict=True):
                rows.append(pool.take())
    is_silent_N = torch.arange(len(clips.all)) < len(clips.silent)
    found = {}
    for site, seen in means.items():
        f_NF, x_ND = (torch.from_numpy(np.stack(one)) for one in seen)
        live = (f_NF != 0).any(0).nonzero()[:, 0]
        share = explained[site].share()
        if not len(live) or share <= 0:
            raise FalseAlarmError(
                f"the SAE does not fit site {site!r} of {steered.model.name}: {len(live)} of its features fire, and it "
                f"explains {share:.2g} of the variance; it belongs to another model or site{explained[site].origin}"
            )
        moved_F, moved_D = (one_NX[is_silent_N].mean(0) - one_NX[~is_silent_N].mean(0) for one_NX in (f_NF, x_ND))
        found[site] = Separation(live, auroc(f_NF, is_silent_N[None])[0], moved_F, moved_D, f_NF)
    return found
