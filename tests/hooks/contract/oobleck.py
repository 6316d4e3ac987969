"""Stable Audio Open's VAE. Reduced, it keeps the published strides and is narrow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.hooks.contract.case import PUBLISHED, Case, Way

diffusers = pytest.importorskip("diffusers", reason="extra vae")

SIZE: dict[str, Any] = (
    {}
    if PUBLISHED
    else {
        "encoder_hidden_size": 8,
        "decoder_channels": 4,
        "decoder_input_channels": 4,
        "channel_multiples": [1, 1, 1, 2, 4],
    }
)
ENCODER, DECODER = ("encoder.*", "latent"), ("decoder_input", "decoder.*")


def build() -> Any:
    return diffusers.AutoencoderOobleck(**SIZE)


def save(module: Any, folder: Path) -> str:
    module.save_pretrained(folder)
    return str(folder)


def mean(model: Any, audio_BCN: Tensor) -> Tensor:
    return model.module.encode(audio_BCN).latent_dist.mode()


def drawn(model: Any, audio_BCN: Tensor) -> Any:
    z_BDT = model.module.encode(audio_BCN, return_dict=False)[0].sample(torch.Generator().manual_seed(0))
    return model.module.decode(z_BDT, return_dict=False)


WAYS = {
    "forward": Way(lambda model, audio_BCN: model(audio_BCN)),
    "forward as a tuple": Way(lambda model, audio_BCN: model(sample=audio_BCN, return_dict=False)),
    "forward with a sample": Way(lambda model, audio_BCN: model(audio_BCN, sample_posterior=True)),
    "encode": Way(lambda model, audio_BCN: model.module.encode(audio_BCN), ENCODER),
    "decode": Way(lambda model, z_BDT: model.module.decode(z_BDT), DECODER, given=mean),
    "encode, sample, decode": Way(drawn),
}
CASES = [Case("AutoencoderOobleck", build, WAYS, save, seconds=5 * 2048 / 44_100)]
