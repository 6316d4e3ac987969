"""A codec with some of its codebooks only: how each family is asked for that, and the bit rate it gives."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from evaluation.config import EvaluationError
from hooks.model import Codec

COUNTS = ("num_quantizers", "n_quantizers")
"""Attributes of codecs that are a number of codebooks: of WavTokenizer, Mimi and SpeechTokenizer, and of DAC."""


def found(codec: Codec, *paths: str) -> Any:
    """The first of these attributes of a codec's module that is there, as a path with dots; None where none is."""
    for path in paths:
        value: Any = codec.module
        for name in path.split("."):
            value = getattr(value, name, None)
        if value is not None and not callable(value):
            return value
    return None


def codebooks_of(codec: Codec) -> int:
    """The number of codebooks, 0 without a quantiser that can be told."""
    if not codec.has_quantizer:
        return 0
    paths = ("config.num_quantizers", "quantizer.n_codebooks", "quantizer.num_quantizers", "quantizer.n_q", "n_q")
    return int(found(codec, *paths) or 0)


def kilobits_of(codec: Codec, count: int) -> float | None:
    """kbit/s of a number of codebooks, where the size of one is known."""
    size = found(codec, "config.bins", "config.codebook_size", "codebook_size", "quantizer.bins")
    return count * codec.frame_rate * math.log2(size) / 1000 if size else None


@contextmanager
def with_codebooks(codec: Codec, count: int | None) -> Iterator[None]:
    """Inside, the codec's round trip takes the first `count` codebooks; None leaves it as it is, but quantised.

    Raises:
        EvaluationError: the codec has no quantiser, fewer codebooks, or none of its bit rates has as many.
    """
    have = codebooks_of(codec)
    if count is not None and not have:
        raise EvaluationError(f"--codebooks {count}: {codec.name} has no residual quantiser")
    if count is not None and not 1 <= count <= have:
        raise EvaluationError(f"--codebooks {count}: {codec.name} has {have}")
    quantized = codec.quantize
    undo = chosen(codec, count) if count is not None else None
    codec.quantize = codec.has_quantizer
    try:
        yield
    finally:
        codec.quantize = quantized
        if undo is not None:
            undo()


def chosen(codec: Codec, count: int) -> Any:
    """Set the number of codebooks; gives what undoes it."""
    for name in COUNTS:
        if hasattr(type(codec), name):
            before = getattr(codec, name)
            setattr(codec, name, count)
            return lambda: setattr(codec, name, before)
    module: Any = codec.module
    rates = list(found(codec, "target_bandwidths", "config.target_bandwidths") or ())
    rate = round(kilobits_of(codec, count) or 0, 3)
    if rate not in rates:
        shown = ", ".join(f"{one:g}" for one in rates) or "none"
        raise EvaluationError(f"--codebooks {count}: {rate:g} kbit/s is not a bit rate of {codec.name} ({shown})")
    if hasattr(module, "set_target_bandwidth"):  # the package's
        before = module.bandwidth
        module.set_target_bandwidth(rate)
        return lambda: setattr(module, "bandwidth", before)
    assert hasattr(codec, "bandwidth")  # transformers'
    before = codec.bandwidth
    codec.bandwidth = rate
    return lambda: setattr(codec, "bandwidth", before)
