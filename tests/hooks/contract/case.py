"""What the contract suite (`test_contract.py`) has to know of a model family; each file beside it gives `CASES`."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hooks import AudioModel

PUBLISHED = bool(os.environ.get("PUBLISHED"))
"""Whether models have their published size (`PUBLISHED=1 pytest tests/hooks/contract`) or a reduced one, as in CI."""


@dataclass(frozen=True)
class Way:
    """A way through a model that its users take, by the API of the model's own library.

    `call(model, given)` gets the wrapped model and what `given(model, audio_BCN)` made before anybody listened (codes
    for a decoder, say; the audio itself if it is None), and returns the library's own output. `passes` are patterns of
    the names of the sites on this way; every other site must stay silent. By how much more or less than seconds x frame
    rate may pass is `slack`, counted in frames of the slowest site on the way (None: do not count).
    """

    call: Callable[[Any, Any], Any]
    passes: tuple[str, ...] = ("*",)
    slack: int | None = 1
    given: Callable[[Any, Tensor], Any] | None = None

    def expects(self, site: str) -> bool:
        return any(fnmatchcase(site, pattern) for pattern in self.passes)


@dataclass(frozen=True)
class Case:
    """A model with random weights, and the ways through it.

    `build()` gives the library's module as its constructor leaves it (training mode or not), at the published
    configuration if `PUBLISHED`, with codebooks filled. `save(module, folder)` writes it as its library does and
    returns the name that `open_model` takes. `refuses` says, by dtype, what of the LIBRARY's own code cannot run in it.
    `batch` is False where the model takes one sound at a time.
    """

    name: str
    build: Callable[[], Any]
    ways: dict[str, Way]
    save: Callable[[Any, Path], str]
    seconds: float = 0.5
    refuses: dict[torch.dtype, str] = field(default_factory=dict)
    batch: bool = True

    def audio(self, model: AudioModel, rows: int = 1) -> Tensor:
        """Noise of rising level [rows, C, samples], the same at every call."""
        assert model.sample_rate is not None
        samples = round(self.seconds * model.sample_rate)
        noise_BCN = torch.randn(rows, model.channels, samples, generator=torch.Generator().manual_seed(1))
        return (noise_BCN * torch.linspace(0.05, 0.5, samples)).to(model.device, model.dtype)
