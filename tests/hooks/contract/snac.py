"""SNAC at 24, 32 and 44.1 kHz; reduced in width, with the published strides and windows."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.hooks.contract.case import PUBLISHED, Case, Way

snac = pytest.importorskip("snac", reason="extra snac")

SPEECH = {"encoder_dim": 48, "encoder_rates": [2, 4, 8, 8], "decoder_dim": 1024, "decoder_rates": [8, 8, 4, 2]}
SPEECH |= {"attn_window_size": None, "vq_strides": [4, 2, 1]}
MUSIC = {"encoder_dim": 64, "encoder_rates": [2, 3, 8, 8], "decoder_dim": 1536, "decoder_rates": [8, 8, 3, 2]}
MUSIC |= {"attn_window_size": 32, "vq_strides": [8, 4, 2, 1]}
CONFIGS: dict[int, dict[str, Any]] = {24_000: SPEECH, 32_000: MUSIC, 44_100: MUSIC}
"""The published configurations; sizes of the codebooks are the package's own."""
ENCODER, DECODER = ("encoder.*", "latent"), ("decoder_input", "decoder.*")


def config_of(rate: int, published: bool = PUBLISHED) -> dict[str, Any]:
    # heads of the attention are 64 wide, at the encoder's end and at the decoder's start
    reduced = {} if published else {"encoder_dim": 8, "decoder_dim": 64, "codebook_size": 64}
    return {"sampling_rate": rate, **CONFIGS[rate], **reduced}


def build(rate: int) -> Any:
    return snac.SNAC(**config_of(rate))


def save(rate: int, module: Any, folder: Path) -> str:
    """As the author's repositories on the hub are; the package has no function for it."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config_of(rate)))
    torch.save(module.state_dict(), folder / "pytorch_model.bin")
    return str(folder)


WAYS = {
    "forward": Way(lambda model, audio_BCN: model.module(audio_BCN)),
    "encode": Way(lambda model, audio_BCN: model.module.encode(audio_BCN), ENCODER),
    "decode": Way(
        lambda model, codes: model.module.decode(codes),
        DECODER,
        given=lambda model, audio_BCN: model.module.encode(audio_BCN),
    ),
}
# two whole windows of the attention, and 3 x 4 frames at 24 kHz
SECONDS = {24_000: 6144 / 24_000, 32_000: 24_576 / 32_000, 44_100: 24_576 / 44_100}
FLOAT32 = dict.fromkeys((torch.float16, torch.bfloat16), "the attention rotates by positions in float32")

CASES = [
    Case(f"snac {rate} Hz", partial(build, rate), WAYS, partial(save, rate), seconds, {} if rate == 24_000 else FLOAT32)
    for rate, seconds in SECONDS.items()
    if PUBLISHED or rate != 44_100
]
