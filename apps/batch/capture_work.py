"""Capturing activations as a task of a batch: each lot becomes a shard of a store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from apps.batch.digest import fingerprint
from apps.batch.jobs import Job
from apps.batch.worker import Done, Worker
from hooks import AudioModel, Clip, capture, open_model
from hooks.store_writing import ShardWriter, head_of

STRETCH_S = 30.0
"""Longer sounds run through the model in stretches of this length."""


@dataclass(frozen=True)
class CaptureTask:
    """Put what passes at `sites` of a model into the store in `folder`; `batch` sounds of equal length run at once."""

    model: str
    sites: tuple[str, ...]
    dtype: str
    folder: Path
    batch: int
    device: str = "cpu"

    def open(self) -> CaptureWorker:
        return CaptureWorker(self, open_model(self.model, device=self.device))

    def fingerprint(self) -> str:
        return fingerprint(None, self.model, sites=self.sites, dtype=self.dtype)


@dataclass
class CaptureWorker(Worker):
    task: CaptureTask
    model: AudioModel
    writer: ShardWriter = field(init=False)

    def __post_init__(self) -> None:
        # a shard is a lot: it is never full before
        head = head_of(self.model, self.task.sites, self.task.dtype)
        self.writer = ShardWriter(self.task.folder, head, shard_bytes=2**40)

    def work(self, jobs: Sequence[Job], values: Sequence[Clip]) -> list[tuple[Clip, dict[str, Tensor]]]:
        pieces: dict[str, list[Tensor]] = {}
        found = []
        captured = capture(self.model, values, self.task.sites, STRETCH_S, self.task.batch)
        dtype = getattr(torch, self.task.dtype)
        for one, clip in ((one, one.source) for one in captured):
            for site, x_BTD in one.activations.items():
                pieces.setdefault(site, []).append(x_BTD.flatten(0, -2).to("cpu", dtype))
            if one.last:
                assert isinstance(clip, Clip)
                found.append((clip, {site: torch.cat(some) for site, some in pieces.items()}))
                pieces = {}
        return found

    def keep(self, job: Job, value: tuple[Clip, dict[str, Tensor]]) -> Done:
        clip, activations = value
        self.writer.add(activations)
        self.writer.finish(job.key)
        frames = {site: len(x_TD) for site, x_TD in activations.items()}
        return Done(clip.seconds, {"frames": frames, **({"notes": list(clip.notes)} if clip.notes else {})})

    def end(self) -> None:
        self.writer.flush()
