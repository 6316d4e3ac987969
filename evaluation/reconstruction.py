"""`steer evaluate reconstruction`: what a codec's round trip keeps of a sound; what its quantiser or an SAE costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evaluation.data import labelled_clips
from evaluation.report import Report, Row, bootstrap
from hooks.errors import require
from hooks.model import Codec
from steer.steered import SteeredModel

SUBSETS = ("speech_misc", "ljspeech", "digits", "notes", "singing", "esc10")
SPEECH = ("speech_misc", "ljspeech", "digits", "keywords", "orders")


def sdr_db(reference: Tensor, output: Tensor) -> float:
    """Signal-to-distortion ratio of waveforms of equal shape, dB: 10 log10(|x|^2 / |x - y|^2)."""
    return float(10 * torch.log10(reference.square().sum() / (reference - output).square().sum().clamp(min=1e-12)))


def stoi(reference: Tensor, output: Tensor, sample_rate: int) -> float | None:
    """Short-time objective intelligibility, 0 to 1; None for clips under 0.5 s."""
    if len(reference) < 0.5 * sample_rate:
        return None
    return float(require("pystoi", "eval").stoi(reference.numpy(), output.numpy(), sample_rate))


def round_trips(steered: SteeredModel, audio_BCN: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Outputs [B, C, N] by the way they went: past the quantiser, through the SAEs instead of the latent, quantised."""
    codec = steered.model
    assert isinstance(codec, Codec)
    default = codec.quantize
    try:
        for path, quantize in (("continuous", False), ("quantised", True)):
            codec.quantize = quantize
            yield path, codec.run(audio_BCN)
            if not quantize:
                with steered.edit(mode="reconstruct"):
                    yield "through the SAE", codec.run(audio_BCN)
    finally:
        codec.quantize = default


@torch.no_grad()
def evaluate(
    steered: SteeredModel,
    vectors: object,
    audio: Path,
    *,
    split: str = "test",
    subsets: Sequence[str] = SUBSETS,
    clips_per_subset: int = 40,
    progress: Callable[[list[Any]], Iterable[Any]] = iter,
) -> Report:
    """Round trips of a split's clips, by subset and path. (`vectors` play no part: evaluators are called alike.)

    Raises:
        AudioFileError: a subset without clips of that split.
    """
    clips: list[Row] = []
    rate = steered.model.sample_rate
    assert rate is not None
    for subset, clip in progress(list(labelled_clips(audio, subsets, split, clips_per_subset))):
        audio_BCN = steered.model.prepare(clip)
        x_N = audio_BCN[0].mean(0)
        for path, output_BCN in round_trips(steered, audio_BCN):
            y_N = output_BCN[0].mean(0)
            clear = stoi(x_N, y_N, rate) if subset in SPEECH else None
            clips.append({"clip": clip.name, "subset": subset, "path": path, "sdr_db": sdr_db(x_N, y_N), "stoi": clear})
    rows = []
    for path in dict.fromkeys(row["path"] for row in clips):
        for subset in subsets:
            chosen = [row for row in clips if row["subset"] == subset and row["path"] == path]
            scores = [row["stoi"] for row in chosen if row["stoi"] is not None]
            rows.append(
                {
                    "path": path,
                    "clips": subset,
                    "count": len(chosen),
                    "SDR (dB)": bootstrap([row["sdr_db"] for row in chosen], np.mean),
                    "STOI": bootstrap(scores, np.mean) if scores else None,
                }
            )
    return Report("Round trip through the codec", rows, clips, {"model": steered.model.name, "split": split})
