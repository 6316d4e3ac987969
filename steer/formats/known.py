"""The known formats of SAE files, each a line in `FORMATS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hooks.extensions import Registry
from steer.errors import SAEError
from steer.formats import dictionary_learning, openai, sae_lens, sparsify
from steer.formats.audio_saes import Freud, WhisperSAE
from steer.formats.checkpoint import Checkpoint
from steer.sae import SAE


@dataclass(frozen=True)
class Format:
    """A format of SAE files, of one package.

    `knows` tells whether a checkpoint is of it, and `build` makes an SAE of one; `save` writes an SAE into a folder, or
    raises SAEError for what the package cannot hold. `weights` is the file's name in a folder, where it always is the
    same, and `config` the JSON beside it, where the weights cannot be read without.
    """

    knows: Callable[[Checkpoint], bool]
    build: Callable[[Checkpoint], SAE]
    save: Callable[[SAE, Path], Any] | None = None
    weights: str = ""
    config: str = ""


FORMATS: Registry[Format] = Registry(
    "format",
    SAEError,
    {
        "openai": Format(openai.knows, openai.build, openai.save),
        "whisper-sae": Format(WhisperSAE.knows, WhisperSAE.build),
        "freud": Format(Freud.knows, Freud.build),
        "saelens": Format(sae_lens.knows, sae_lens.build, sae_lens.save_sae, sae_lens.WEIGHTS, sae_lens.CFG),
        "sparsify": Format(sparsify.knows, sparsify.build, sparsify.save, sparsify.WEIGHTS, sparsify.CFG),
        "dictionary_learning": Format(
            dictionary_learning.knows, dictionary_learning.build, dictionary_learning.save, dictionary_learning.WEIGHTS
        ),
    },
)
"""In the order in which they are asked whether they know a checkpoint, and a folder is looked through."""


def writable() -> list[str]:
    """The formats that can be written."""
    return [name for name, known in FORMATS.all().items() if known.save]


def files() -> list[str]:
    """Names of files by which a folder is known to hold an SAE."""
    return [known.weights for known in FORMATS.all().values() if known.weights]
