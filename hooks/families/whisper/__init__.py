"""Whisper (arXiv 2212.04356): the `openai-whisper` package and transformers' Whisper, under the same site names.

Encoder sites have 50 frames a second:

- `encoder.conv`: what the convolutional front gives, positions added, as the first block gets it;
- `encoder.N`: what block N (from 0) gives, BEFORE the norm that closes the encoder;
- `encoder.norm`: behind that norm, which is what the decoder reads.

In transformers' `hidden_states` these are [0], [N + 1] and [-1]; what the last block gives is not among them, since the
library shows the last one behind the norm. `decoder.N` is what block N of the decoder gives: the prompt in one call,
then a frame a token. A token has no time, so edits there take no `during`.

Whisper hears windows of 30 s, and the rest of the last one is padding. `run` and `transcribe` say where in the file a
window starts (`at_time`) and where the sound ends (`sound_until`), so `during` is in seconds of the file, however long
it is, and `real_frames` tells sound from padding. Calls of the libraries (`decode`, `generate`, a pipeline) are edited
as well, but nobody knows the time in them: say it with `at_time`.

What the padding is differs, and blocks attend to it: `run` (in both) and transformers' short way fill up with silence,
`whisper.transcribe` and transformers' long way with zeros in the spectrogram, whose floor is set by the whole file.
"""

from __future__ import annotations

from typing import Any

from hooks.families.whisper import compact, ct2, hf, package
from hooks.families.whisper.base import Whisper
from hooks.families.whisper.package import WhisperPackage
from hooks.family import Family


def wrap(module: Any) -> Whisper:
    return WhisperPackage(module) if hasattr(module, "dims") else hf.WhisperTransformers(module)


FAMILY = Family(
    "whisper",
    names=(
        *(f"whisper:{size}" for size in ("tiny", "base", "small", "medium", "large-v3", "turbo")),
        *(f"hf:openai/whisper-{size}" for size in ("tiny", "base", "small", "medium", "large-v3", "large-v3-turbo")),
    ),
    classes=(
        "whisper.model.Whisper",
        "transformers.models.whisper.modeling_whisper.WhisperForConditionalGeneration",
        "transformers.models.whisper.modeling_whisper.WhisperModel",
    ),
    libraries=("whisper", "transformers"),
    wrap=wrap,
    open_name=package.open_name,
    open_folder=hf.open_folder,
)
FAMILIES = (FAMILY, compact.FAMILY, ct2.FAMILY)
"""All that open as a Whisper."""

__all__ = ["FAMILIES", "Whisper", "WhisperPackage"]
