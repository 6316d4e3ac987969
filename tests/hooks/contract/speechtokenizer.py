"""SpeechTokenizer with both activations of its releases; reduced unless PUBLISHED (104 M parameters)."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.hooks.contract.case import PUBLISHED, Case, Way

speechtokenizer = pytest.importorskip("speechtokenizer", reason="extra speechtokenizer")

CONFIG = {
    "sample_rate": 16_000,
    "n_filters": 64,
    "strides": [8, 5, 4, 2],
    "dimension": 1024,
    "semantic_dimension": 768,
    "bidirectional": True,
    "dilation_base": 2,
    "residual_kernel_size": 3,
    "n_residual_layers": 1,
    "lstm_layers": 2,
    "activation": "ELU",
    "codebook_size": 1024,
    "n_q": 8,
}
SMALL = CONFIG | {"n_filters": 4, "dimension": 32, "semantic_dimension": 24, "codebook_size": 256}
"""Another width; strides, rates, depth and all kinds of layers are those of the published models."""
ENCODER, DECODER = ("encoder.*", "latent"), ("decoder_input", "decoder.*")


def config_of(activation: str) -> dict[str, Any]:
    return (CONFIG if PUBLISHED else SMALL) | {"activation": activation}


def build(config: dict[str, Any]) -> Any:
    return fill_codebooks(speechtokenizer.SpeechTokenizer(config))


@torch.no_grad()
def fill_codebooks(module: Any) -> Any:
    """Random codebooks where the latent is; as the library leaves them, the first sound would be clustered."""
    latents_BDT = module.encoder(torch.randn(1, 1, 8_000) * torch.linspace(0, 1, 8_000))
    # a random network answers mostly with its biases: what does not change with the sound is the first book's part
    mean_D, spread_D = latents_BDT.mean((0, 2)), latents_BDT.std((0, 2))
    for index, layer in enumerate(module.quantizer.vq.layers):
        layer._codebook.embed.normal_().mul_(spread_D).add_(0 if index else mean_D)
        layer._codebook.inited.fill_(1)
    return module


def save(config: dict[str, Any], module: Any, folder: Path) -> str:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(module.state_dict(), folder / "SpeechTokenizer.pt")
    return f"speechtokenizer:{folder}"


def codes(model: Any, audio_BCN: Tensor) -> Tensor:
    return model.module.encode(audio_BCN)


WAYS = {
    "forward": Way(lambda model, audio_BCN: model.module(audio_BCN)),
    "two codebooks": Way(lambda model, audio_BCN: model.module(audio_BCN, n_q=2, layers=[0, 1])),
    "features": Way(lambda model, audio_BCN: model.module.forward_feature(audio_BCN, [0, 2]), (*ENCODER, "semantic")),
    "encode": Way(lambda model, audio_BCN: model.module.encode(audio_BCN), ENCODER),
    "encode from a codebook on": Way(lambda model, audio_BCN: model.module.encode(audio_BCN, st=1), ENCODER),
    "decode": Way(lambda model, codes_KBT: model.module.decode(codes_KBT), DECODER, given=codes),
    "decode from a codebook on": Way(
        lambda model, codes_KBT: model.module.decode(codes_KBT[1:], st=1), DECODER, given=codes
    ),
    "past the quantiser": Way(lambda model, audio_BCN: model.decode(model.encode(audio_BCN)), (*ENCODER, *DECODER)),
}


def case_of(activation: str) -> Case:
    config = config_of(activation)
    return Case(f"speechtokenizer {activation}", partial(build, config), WAYS, partial(save, config))


CASES = [case_of(activation) for activation in ("ELU", "Snake")]
