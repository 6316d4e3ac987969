"""A training that lasts a given time: the loop that the scripts of the starter models share."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from hooks.files import whole_file

Terms = Mapping[str, Tensor]
"""Numbers of one step; `total` is what is minimised, the others are for the log."""


class TimedTraining:
    """AdamW on all parameters of a model, with averaged weights, a log and checkpoints in a folder.

    The learning rate rises over `warmup` steps to `rate` and falls by half a cosine with the share of `minutes` that
    has been `used`. A run that was stopped goes on from its last checkpoint.
    """

    def __init__(
        self,
        model: nn.Module,
        folder: Path,
        minutes: float,
        rate: float,
        *,
        warmup: int,
        betas: tuple[float, float],
        weight_decay: float,
        clip: float,
    ) -> None:
        self.model, self.folder, self.minutes, self.rate = model, folder, minutes, rate
        self.warmup, self.clip = warmup, clip
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=betas, weight_decay=weight_decay)
        self.step, self.used = 0, 0.0
        self.best = math.inf
        """The lowest score so far, for a `check` that chooses weights by one."""
        self.restart_average()

    def restart_average(self) -> None:
        self.average = {name: value.detach().clone() for name, value in self.model.named_parameters()}

    def save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average,
            "step": self.step,
            "used": self.used,
            "best": self.best,
        }
        with whole_file(self.folder / "state.pt") as partial:
            torch.save(state, partial)

    def resume(self) -> None:
        path = self.folder / "state.pt"
        if path.exists():
            device = next(self.model.parameters()).device
            state = torch.load(path, map_location=device, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.average, self.step, self.used = state["average"], state["step"], state["used"]
            self.best = state.get("best", math.inf)

    def learn(self, total: Tensor) -> None:
        """One step down."""
        warm = min(1.0, (self.step + 1) / self.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * self.used)))
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        if torch.isfinite(norm):
            self.optimizer.step()
        self.step += 1
        decay = min(0.999, self.step / (self.step + 10))
        with torch.no_grad():
            names, weights = zip(*self.model.named_parameters(), strict=True)
            torch._foreach_lerp_([self.average[name] for name in names], list(weights), 1 - decay)

    def run(
        self,
        terms: Callable[[], Terms],
        check: Callable[[], Mapping[str, float]] = dict,
        log_every: int = 50,
        check_every: int = 500,
    ) -> None:
        """Train until the time is used up; every `check_every` steps a checkpoint, and `check` adds to the log."""
        sums: dict[str, list[Tensor]] = {}
        mark = time.monotonic()
        with (self.folder / "log.jsonl").open("a") as log:
            while self.used < 1.0:
                values = terms()
                self.learn(values["total"])
                for key, value in values.items():
                    sums.setdefault(key, []).append(value.detach())
                row = {}
                if self.step % log_every == 0:
                    # read here only: a GPU would wait for each number
                    row = {key: mean for key, each in sums.items() if math.isfinite(mean := mean_of(each))}
                    sums = {}
                if self.step % check_every == 0:
                    row |= check()
                    self.save()
                if row:
                    print(json.dumps({"step": self.step, "used": round(self.used, 4), **row}), file=log, flush=True)
                now = time.monotonic()
                self.used += (now - mark) / 60 / self.minutes
                mark = now
        self.save()


def mean_of(values: list[Tensor]) -> float:
    """Of those that are finite; NaN if none is."""
    values_N = torch.stack(values).float()
    return round(float(values_N[torch.isfinite(values_N)].mean()), 4)
