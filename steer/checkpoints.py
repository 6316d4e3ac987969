"""`Run`: the folder of a training, with its checkpoint, log and loss curve."""

from __future__ import annotations

import json
import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hooks.files import whole_file, write_text
from steer.errors import SAEError, TrainingError
from steer.kernels import usable
from steer.matmul import arithmetic, backend, using
from steer.trainee import TrainConfig, Trainee

log = logging.getLogger(f"audiosteer.{__name__}")
STATE, LOG, CURVE = "state.pt", "log.jsonl", "loss.png"


class Run:
    """A training's folder: checkpoint, log and loss curve. Without a folder nothing is written."""

    def __init__(
        self, folder: Path | None, trainees: list[Trainee], shapes: dict[str, list[int]], device: torch.device
    ) -> None:
        self.folder, self.trainees, self.device = folder, trainees, device
        self.product = backend()
        self.key = {"configs": [trainee.config.to_dict() for trainee in trainees], "frames": shapes}
        self.lines: list[dict[str, Any]] = []

    def make_folder(self) -> None:
        if self.folder is not None:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise TrainingError(f"{self.folder}: cannot write there ({error.strerror})") from error

    def resume(self) -> int:
        """Go on from the checkpoint, if there is one: the number of steps that are done."""
        if self.folder is None or not (self.folder / STATE).exists():
            return 0
        try:
            state = torch.load(self.folder / STATE, map_location="cpu", weights_only=True)
            key, step, trainees = state["key"], state["step"], state["trainees"]
            # earlier checkpoints do not have all of today's settings: those had one value only, the default
            key["configs"] = [TrainConfig().to_dict() | config for config in key["configs"]]
        except Exception as error:  # torch raises a dozen kinds for damaged files
            raise TrainingError(f"{self.folder / STATE}: cannot be read ({str(error).splitlines()[0]})") from error
        if key != self.key:
            raise TrainingError(f"{self.folder}: holds a checkpoint of another training; choose another folder")
        for trainee, saved in zip(self.trainees, trainees, strict=True):
            trainee.load_state_dict(saved)
        self.lines = state["lines"]
        if "arithmetic" in state:  # earlier checkpoints have none
            self.round_as(state["arithmetic"])
        return step

    def round_as(self, before: Mapping[str, str]) -> None:
        """Multiply with the library that a checkpoint names; where the rest cannot be as it was, warn."""
        try:
            with using(before["product"]):
                self.product, now = backend(), self.arithmetic()
        except SAEError:
            now = self.arithmetic()
        now = {"kernels": "torch", **now}
        if changed := [f"{name} was {then} and is {now[name]}" for name, then in before.items() if now[name] != then]:
            warnings.warn(
                f"{self.folder}: the checkpoint was computed otherwise ({', '.join(changed)}): sums round differently, "
                "so the weights will not be those of an undisturbed run, bit for bit",
                stacklevel=2,
            )

    def arithmetic(self) -> dict[str, str]:
        """All that decides how this training rounds, in words."""
        return arithmetic(self.device) | usable.names(self.device)

    def line(self, step: int, terms: list[dict[str, Tensor]]) -> dict[str, Any]:
        """What the log says of a step: `step`, and of each SAE its loss, explained variance, L0 and share of dead ones.

        Raises:
            TrainingError: a loss is not finite.
        """
        columns = {name: [round(float(t[name]), 6) for t in terms] for name in terms[0]}
        if not all(math.isfinite(loss) for loss in columns["loss"]):
            raise TrainingError(f"step {step}: the loss is not finite; lower lr, or look for NaN in the activations")
        return {"step": step, **columns}

    def save(self, step: int) -> None:
        if self.folder is None:
            return
        state = {
            "key": self.key,
            "step": step,
            "trainees": [trainee.state_dict() for trainee in self.trainees],
            "lines": self.lines,
            "arithmetic": self.arithmetic(),
        }
        try:
            with whole_file(self.folder / STATE) as path:
                torch.save(state, path)
            write_text(self.folder / LOG, "".join(json.dumps(line) + "\n" for line in self.lines))
            draw_losses(self.lines, self.folder / CURVE)
            log.info("checkpoint of step %d in %s", step, self.folder)
        except (OSError, RuntimeError) as error:
            raise TrainingError(f"{self.folder}: the checkpoint could not be written ({error})") from error


def draw_losses(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Loss and explained variance over steps, as a PNG; nothing without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    figure = Figure(figsize=(8, 3), layout="constrained")
    steps = [line["step"] for line in lines]
    for axes, name in zip(figure.subplots(1, 2), ("loss", "explained_variance"), strict=True):
        axes.plot(steps, [line[name] for line in lines])
        axes.set(xlabel="step", title=name.replace("_", " "))
    figure.axes[0].set_yscale("log")
    with whole_file(path) as partial:
        figure.savefig(partial, format="png", dpi=120)
