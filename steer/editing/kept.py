"""What an edit left as it was: in numbers that can be printed beside what it changed."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import Tensor

from hooks.errors import MissingExtraError, require
from hooks.model import Codec
from hooks.samples import mix_weights
from steer.editing.transfer import BAND_END, spectrum

SHORTEST_S = 0.5
"""STOI takes windows of 0.38 s."""
SILENT = 1e-12


@dataclass(frozen=True)
class Kept:
    """`stoi`: intelligibility (0 to 1, Taal et al. 2011) of the output with the input as its reference; None for short
    sounds and without the extra `eval`. `above_band_db`: change of the energy above the codec's band; None where the
    file has none."""

    stoi: float | None = None
    above_band_db: float | None = None

    def to_dict(self, outside_unchanged: bool) -> dict[str, Any]:
        return {**asdict(self), "outside_unchanged": outside_unchanged}


def what_was_kept(before_CN: Tensor, after_CN: Tensor, sample_rate: int, codec: Codec) -> Kept:
    assert codec.sample_rate is not None
    return Kept(
        intelligibility(before_CN, after_CN, sample_rate),
        above_band_db(before_CN, after_CN, sample_rate, codec.sample_rate),
    )


def intelligibility(before_CN: Tensor, after_CN: Tensor, sample_rate: int) -> float | None:
    try:
        pystoi = require("pystoi", "eval")
    except MissingExtraError:
        return None
    if before_CN.shape[1] < SHORTEST_S * sample_rate:
        return None
    # channels that cancel each other in the input's mix would leave nothing to compare
    weights_C = mix_weights(before_CN.double())
    before, after = ((weights_C @ x_CN.double()).numpy() for x_CN in (before_CN, after_CN))
    if not np.abs(before).max() > 0:
        return None
    value = float(pystoi.stoi(before, after, sample_rate))
    # pystoi gives 1e-5 where too little of the sound is not silent
    return value if value > 1e-4 else None


def above_band_db(before_CN: Tensor, after_CN: Tensor, sample_rate: int, codec_rate: int) -> float | None:
    if sample_rate <= codec_rate:
        return None
    powers = []
    for x_CN in (before_CN, after_CN):
        power_CFT = spectrum(x_CN, sample_rate).abs().square()
        first = math.ceil(BAND_END * codec_rate / sample_rate * 2 * (power_CFT.shape[1] - 1))
        powers.append(float(power_CFT[:, first:].double().mean()))
    return 10 * math.log10(powers[1] / powers[0]) if min(powers) > SILENT else None
