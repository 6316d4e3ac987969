from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hooks.networks.wavtokenizer import WavTokenizer, WavTokenizerConfig
from tests.hooks.contract.bigcodec import lively
from tests.hooks.contract.case import PUBLISHED, Case, Way

HZ_75 = WavTokenizerConfig()
HZ_40 = WavTokenizerConfig(ratios=(6, 5, 5, 4), n_fft=2400)


def builder(config: WavTokenizerConfig) -> Callable[[], WavTokenizer]:
    if not PUBLISHED:
        config = dataclasses.replace(config, dimension=16, n_filters=4, bins=64, width=32, hidden=48, num_layers=2)

    def build() -> WavTokenizer:
        module = WavTokenizer(config)
        lively(module.encoder)
        with torch.no_grad():
            z_BDT = module.encode(torch.randn(1, 12_000))
            for book in module.quantizer.codebooks():
                book.embed.normal_().mul_(z_BDT.std()).add_(z_BDT.mean(-1))
        return module

    return build


def save(module: WavTokenizer, folder: Path) -> str:
    """As the authors' training leaves it: no configuration, and more than the codec."""
    folder.mkdir(exist_ok=True)
    unused = {"multiperioddisc.discriminators.0.convs.0.weight_g": torch.ones(1)}
    torch.save({"epoch": 1, "state_dict": module.state_dict() | unused}, folder / "WavTokenizer_small.ckpt")
    return f"wavtokenizer:{folder / 'WavTokenizer_small.ckpt'}"


def codes(model: Any, audio_BCN: Tensor) -> Tensor:
    return model.quantizer.encode(model.module.encode(audio_BCN[:, 0]))


ENCODER, DECODER = ("encoder.*", "latent"), ("decoder_input", "decoder.*", "decoder_output")

WAYS = {
    "forward": Way(lambda model, audio_BCN: model.module(audio_BCN[:, 0])),
    "with the quantiser": Way(lambda model, audio_BCN: model.module(audio_BCN[:, 0], quantize=True)),
    "encode": Way(lambda model, audio_BCN: model.encode(audio_BCN), ENCODER),
    "decode": Way(lambda model, z_BTD: model.decode(z_BTD), DECODER, given=lambda m, x: m.encode(x)),
    "codes": Way(lambda model, codes: model.module.decode(model.quantizer.decode(codes)), DECODER, given=codes),
}

CASES = [
    Case("wavtokenizer-75hz", builder(HZ_75), WAYS, save),
    Case("wavtokenizer-40hz", builder(HZ_40), WAYS, save),
]
