from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hooks.networks.bigcodec import BigCodec, BigCodecConfig
from hooks.networks.weight_norm import WeightNormConv1d
from tests.hooks.contract.case import PUBLISHED, Case, Way

SMALL = BigCodecConfig(n_filters=2, dimension=16, bins=64, code_dim=4)
"""Strides and rates of the published model."""
CONFIG = BigCodecConfig() if PUBLISHED else SMALL


def lively(module: nn.Module) -> None:
    """Undo torch's uniform start, which shrinks what passes until only the biases are heard."""
    for layer in module.modules():
        if isinstance(layer, WeightNormConv1d):
            nn.init.zeros_(layer.bias)
            layer.weight_g.data.mul_(3**0.5)


def build(config: BigCodecConfig = CONFIG) -> BigCodec:
    module = BigCodec(config)
    lively(module.encoder)  # else every frame has the same code
    nn.init.zeros_(module.quantizer.layer.in_proj.bias)
    return module


def save(module: BigCodec, folder: Path) -> str:
    """As the authors publish it."""
    folder.mkdir(exist_ok=True)
    path = folder / "bigcodec.pt"
    torch.save({"CodecEnc": module.encoder.state_dict(), "generator": module.decoder.state_dict()}, path)
    return f"bigcodec:{path}"


def codes(model: Any, audio_BCN: Tensor) -> Tensor:
    return model.quantizer.encode(model.module.encode(audio_BCN[:, 0]))


ENCODER, DECODER = ("encoder.*", "latent"), ("decoder_input", "decoder.*")

WAYS = {
    "forward": Way(lambda model, audio_BCN: model.module(audio_BCN[:, 0])),
    "past the quantiser": Way(lambda model, audio_BCN: model.module(audio_BCN[:, 0], quantize=False)),
    "encoder": Way(lambda model, audio_BCN: model.module.encoder(audio_BCN), ENCODER),
    "quantiser": Way(lambda model, z_BDT: model.decoder(z_BDT, vq=True), (), given=lambda m, x: m.module.encoder(x)),
    "decoder": Way(
        lambda model, z_BDT: model.decoder(z_BDT, vq=False), DECODER, given=lambda m, x: m.module.encoder(x)
    ),
    "encode": Way(lambda model, audio_BCN: model.encode(audio_BCN), ENCODER),
    "decode": Way(lambda model, z_BTD: model.decode(z_BTD), DECODER, given=lambda m, x: m.encode(x)),
    "codes": Way(lambda model, codes: model.module.decode(model.quantizer.decode(codes)), DECODER, given=codes),
}

CASES = [Case("bigcodec", build, WAYS, save, seconds=0.3)]
