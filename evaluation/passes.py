"""`Passes`: sounds as gates see them, kept on disk, so that none is passed twice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from evaluation.ablation import Progress
from evaluation.dataset import LabelledSound
from hooks.capture import Recorder
from hooks.files import whole_file
from steer.gate_fit import Pooled
from steer.pooling import LOGS, pooled
from steer.steered import SteeredModel

OFTEN = 100
"""So many passes are made between two writes."""
FEATURES, ACTIVATION = "features/", "activation/"


class Passes:
    """Features of an SAE [2, F] and the activation [1, D] of sounds, pooled over all their frames, by name.

    They are kept in `path` with what they depend on (`settings`); a file of other settings is begun anew.
    """

    def __init__(self, steered: SteeredModel, site: str, path: Path | None, settings: str) -> None:
        self.steered, self.site, self.path, self.settings = steered, site, path, settings
        self.known: dict[str, Tensor] = {}
        if path is not None and path.exists():
            try:
                with safe_open(str(path), "pt") as file:
                    if (file.metadata() or {}).get("settings") == settings:
                        self.known = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            except (OSError, SafetensorError):
                pass  # a damaged one is begun anew too

    @torch.no_grad()
    def of(self, sounds: Sequence[LabelledSound], progress: Progress = iter) -> tuple[Pooled, Pooled]:
        """Features and activation of sounds, in one pass each; padding is left out.

        Raises:
            AudioFileError: a sound that cannot be read.
        """
        model, sae = self.steered.model, self.steered.saes[self.site]
        where = model.site(self.site)
        missing = [sound for sound in sounds if FEATURES + sound.name not in self.known]
        for number, sound in enumerate(progress(missing) if missing else (), 1):
            with Recorder(model.module, [where]) as recorder:
                model.pass_through(model.prepare(sound.source))
                x_BTD = recorder.take()[self.site].float()
            self.known[FEATURES + sound.name] = pooled(sae.encode(x_BTD).float(), LOGS).cpu()
            self.known[ACTIVATION + sound.name] = pooled(x_BTD, ("mean",)).cpu()
            if number % OFTEN == 0 or number == len(missing):
                self.write()
        count = torch.arange(len(sounds))
        features, activations = (
            torch.stack([self.known[kind + sound.name] for sound in sounds]) for kind in (FEATURES, ACTIVATION)
        )
        return (
            Pooled(features, count, LOGS, self.site, model.name),
            Pooled(activations, count, ("mean",), self.site, model.name, "activation"),
        )

    def write(self) -> None:
        if self.path is not None:
            with whole_file(self.path) as partial:
                save_file(self.known, partial, {"settings": self.settings})
