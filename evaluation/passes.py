"""`Kept`: tensors of a study on disk. `Passes`: sounds as gates see them, so that none is passed twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from evaluation.dataset import LabelledSound
from evaluation.report import Progress
from hooks.capture import Recorder
from hooks.files import whole_file
from steer.gate_fit import Pooled
from steer.pooling import LOGS, pooled
from steer.steered import SteeredModel

OFTEN = 100
"""So many passes are made between two writes."""
FEATURES, ACTIVATION = "features/", "activation/"


class Kept:
    """Tensors by name, in `path` with what they depend on (`settings`); a file of other settings, or one that is
    damaged, is begun anew. Without a path they are in memory alone."""

    def __init__(self, path: Path | None, settings: str) -> None:
        self.path, self.settings = path, settings
        self.known: dict[str, Tensor] = {}
        if path is not None and path.exists():
            try:
                with safe_open(str(path), "pt") as file:
                    if (file.metadata() or {}).get("settings") == settings:
                        self.known = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            except (OSError, SafetensorError):
                pass

    def of(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """The tensor of a name, made if it is not there."""
        if name not in self.known:
            self.known[name] = make()
            self.write()
        return self.known[name]

    def write(self) -> None:
        if self.path is not None:
            with whole_file(self.path) as partial:
                save_file(self.known, partial, {"settings": self.settings})


class Passes:
    """Features of an SAE [2, F] and the activation [1, D] of sounds, pooled over all their frames, by name."""

    def __init__(self, steered: SteeredModel, site: str, kept: Kept) -> None:
        self.steered, self.site, self.kept = steered, site, kept

    @torch.no_grad()
    def of(self, sounds: Sequence[LabelledSound], progress: Progress = iter) -> tuple[Pooled, Pooled]:
        """Features and activation of sounds, in one pass each; padding is left out.

        Raises:
            AudioFileError: a sound that cannot be read.
        """
        model, sae, known = self.steered.model, self.steered.saes[self.site], self.kept.known
        where = model.site(self.site)
        missing = [sound for sound in sounds if FEATURES + sound.name not in known]
        for number, sound in enumerate(progress(missing) if missing else (), 1):
            with Recorder(model.module, [where]) as recorder:
                model.pass_through(model.prepare(sound.source))
                x_BTD = recorder.take()[self.site].float()
            known[FEATURES + sound.name] = pooled(sae.encode(x_BTD).float(), LOGS).cpu()
            known[ACTIVATION + sound.name] = pooled(x_BTD, ("mean",)).cpu()
            if number % OFTEN == 0 or number == len(missing):
                self.kept.write()
        count = torch.arange(len(sounds))
        features, activations = (
            torch.stack([known[kind + sound.name] for sound in sounds]) for kind in (FEATURES, ACTIVATION)
        )
        return (
            Pooled(features, count, LOGS, self.site, model.name),
            Pooled(activations, count, ("mean",), self.site, model.name, "activation"),
        )
