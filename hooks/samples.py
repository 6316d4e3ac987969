"""Samples: arrays of any type as floats with full scale 1, whether they can be a sound, other rates and mono mixes."""

from __future__ import annotations

import math

import numpy as np
import soxr
import torch
from torch import Tensor

from hooks.errors import AudioFileError

MAX_CHANNELS = 8
LOUDEST = 2.0**32
"""Floats in the range of 32-bit integers are a sound written oddly; what lies beyond is damage, and overflows later."""
FAR_ABOVE = 16.0
"""Peaks beyond this many times full scale (24 dB) are no loud sound: integers were stored as floats, for one."""
FULL_SCALE = {torch.int8: 2.0**7, torch.int16: 2.0**15, torch.int32: 2.0**31}
UNSIGNED_MIDDLE = 128.0
"""Sounds of 8 bits without a sign have their zero there."""


def as_floats(samples: Tensor | np.ndarray) -> Tensor:
    """Samples [channels, n] or [n] as float32 [channels, n]; integers become floats with full scale 1.

    Raises:
        AudioFileError: neither [channels, n] nor [n], more than 8 channels, or numbers of a type that no sound has.
    """
    if isinstance(samples, np.ndarray):
        try:
            # torch takes neither other byte orders nor negative strides
            samples = torch.from_numpy(np.ascontiguousarray(samples, samples.dtype.newbyteorder("=")))
        except TypeError as error:
            raise AudioFileError(f"samples of a sound are floats or integers, not {samples.dtype}") from error
    samples = torch.as_tensor(samples)
    if samples.dtype in FULL_SCALE:
        samples = samples.to(torch.float64) / FULL_SCALE[samples.dtype]
    elif samples.dtype == torch.uint8:
        samples = (samples.float() - UNSIGNED_MIDDLE) / UNSIGNED_MIDDLE
    elif not samples.is_floating_point():
        raise AudioFileError(
            f"samples of a sound are floats with full scale 1, or integers of 8, 16 or 32 bits, not {samples.dtype}; "
            "divide them by their full scale"
        )
    if samples.ndim == 1:
        samples = samples[None]
    if samples.ndim != 2:
        raise AudioFileError(f"a clip is [channels, samples], not {list(samples.shape)}")
    if samples.shape[0] > MAX_CHANNELS:
        turned = "; turn it with .T" if samples.shape[1] <= MAX_CHANNELS else ""
        raise AudioFileError(
            f"a clip is [channels, samples] with at most {MAX_CHANNELS} channels, not {list(samples.shape)}, which "
            f"looks like the [samples, channels] of soundfile.read{turned}"
        )
    return samples.to(torch.float32)


def check_samples(waveform: Tensor, name: str) -> float:
    """The largest magnitude.

    Raises:
        AudioFileError: there are no samples, or samples that are no numbers of a sound.
    """
    if waveform.numel() == 0:
        raise AudioFileError(f"{name}: has no samples")
    if not torch.isfinite(waveform).all():
        bad = int((~torch.isfinite(waveform)).sum())
        raise AudioFileError(f"{name}: {bad} samples are not finite (NaN or infinite); repair the file first")
    loudest = float(waveform.abs().max())
    if loudest > LOUDEST:
        raise AudioFileError(f"{name}: has samples up to {loudest:.0e}, where a sound has 1; repair the file first")
    return loudest


def far_above(loudest: float) -> str:
    """What is said of peaks far above full scale; empty for others."""
    if loudest <= FAR_ABOVE:
        return ""
    return (
        f"peaks at {loudest:.5g}, {20 * math.log10(loudest):.0f} dB above full scale (1.0); if these are integers "
        "stored as floats, divide them by their full scale (32768 for 16 bits)"
    )


def resampled(x_CN: Tensor, source_rate: float, target_rate: float) -> Tensor:
    """A sound [C, N] or [N] at another rate (soxr, high quality)."""
    if source_rate == target_rate:
        return x_CN
    rows = soxr.resample(np.ascontiguousarray(x_CN.numpy().T), source_rate, target_rate)
    return torch.from_numpy(np.ascontiguousarray(rows.T))


def mix_weights(x_CN: Tensor) -> Tensor:
    """Weights [C] with which channels are mixed to mono: equal ones, or where the channels cancel each other in such a
    mix (it has less than half of the power that unrelated channels would leave), 1 for the loudest."""
    return weights_for(x_CN, x_CN.mean(0))


def weights_for(x_CN: Tensor, mean_N: Tensor) -> Tensor:
    """As `mix_weights`, where the mean of the channels is known."""
    count = x_CN.shape[0]
    equal_C = x_CN.new_full((count,), 1 / count)
    if count == 1:
        return equal_C
    norm_C = torch.linalg.vector_norm(x_CN, dim=1)
    if torch.linalg.vector_norm(mean_N).square() >= 0.5 / count * norm_C.square().mean():
        return equal_C
    weights_C = torch.zeros_like(equal_C)
    # the first of those that are as good as equal, so that polarity does not decide
    weights_C[(norm_C >= 0.99 * norm_C.max()).nonzero()[0, 0]] = 1.0
    return weights_C


def mixed_to_mono(x_CN: Tensor) -> tuple[Tensor, str]:
    """(mono [1, N], what is said of it): the mean of the channels, or the loudest where the mean cancels them."""
    mean_N = x_CN.mean(0)
    weights_C = weights_for(x_CN, mean_N)
    if len(weights_C) == 1 or float(weights_C.max()) < 1.0:
        return mean_N[None], ""
    loudest = int(weights_C.argmax())
    below = float(mean_N.square().mean() / x_CN.square().mean())
    told = f"{-10 * math.log10(below):.0f} dB below them" if below > 1e-12 else "which is silent"
    note = f"its channels cancel each other in a mono mix ({told}); channel {loudest + 1}, the loudest, is read instead"
    return x_CN[loudest : loudest + 1].clone(), note
