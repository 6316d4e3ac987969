"""Features of sounds as a task of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from apps.batch.digest import fingerprint
from apps.batch.jobs import Job
from apps.batch.worker import Done, Worker
from apps.feature_lists import features_of_all, lists_of
from apps.files import write_result
from evaluation.atlas import Atlas
from hooks import Clip
from steer.recipe import Recipe
from steer.steered import SteeredModel

TOGETHER, TOGETHER_S = 8, 16.0
"""So many files go through the model at once, of so many seconds together: more is no faster on a CPU."""


@dataclass(frozen=True)
class FeaturesTask:
    """List the `top` features of files, with their labels in `atlas`; all of them go to a job's target."""

    recipe: Recipe
    top: int
    atlas: str = ""
    device: str = "cpu"

    def open(self) -> FeaturesWorker:
        return FeaturesWorker(self.recipe.open(self.device), self.top, Atlas.load(self.atlas) if self.atlas else None)

    def fingerprint(self) -> str:
        return fingerprint(self.recipe, self.atlas, top=self.top)


@dataclass
class FeaturesWorker(Worker):
    steered: SteeredModel
    top: int
    atlas: Atlas | None

    def work(self, jobs: Sequence[Job], values: Sequence[Clip]) -> list[tuple[Clip, dict[str, Tensor]]]:
        with torch.no_grad():
            found = features_of_all(self.steered, values)
        return list(zip(values, found, strict=True))

    def keep(self, job: Job, value: tuple[Clip, dict[str, Any]]) -> Done:
        clip, features = value
        if job.target is not None:
            write_result(job.target, lambda path: save_file(features, path), force=True)
        lists = lists_of(self.steered, str(job.source), features, self.top, self.atlas)
        return Done(clip.seconds, {"lists": lists, **({"notes": list(clip.notes)} if clip.notes else {})})
