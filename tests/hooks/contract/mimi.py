"""Mimi: all ways of the library, streams with caches among them; reduced unless PUBLISHED (79 M parameters)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.hooks.contract.case import PUBLISHED, Case, Way

transformers = pytest.importorskip("transformers", reason="extra mimi")

SMALL = {
    "num_filters": 4,
    "hidden_size": 32,
    "upsample_groups": 32,
    "num_hidden_layers": 3,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vector_quantization_hidden_dimension": 16,
    "codebook_dim": 16,
    "codebook_size": 256,
    "num_quantizers": 8,
}
"""Another width and depth; strides, rates and all kinds of layers are those of the published model."""
FRAME = 1_920
ENCODER, DECODER = ("encoder*", "latent"), ("decoder*",)


def build() -> Any:
    return fill_codebooks(transformers.MimiModel(transformers.MimiConfig(**({} if PUBLISHED else SMALL))))


@torch.no_grad()
def fill_codebooks(module: Any) -> Any:
    """Random codebooks of the size of what they get: the library starts them at zero, so that every input is alike."""
    latents_BDT = module.encoder(torch.randn(1, 1, 5 * FRAME)).latents
    quantizer = module.quantizer
    for books in (quantizer.semantic_residual_vector_quantizer, quantizer.acoustic_residual_vector_quantizer):
        spread = books.input_proj(latents_BDT).std()
        for layer in books.layers:
            layer.codebook.embed_sum.normal_(0, float(spread))
    return module


def save(module: Any, folder: Path) -> str:
    module.save_pretrained(folder)
    return str(folder)


def codes(model: Any, audio_BCN: Tensor) -> Tensor:
    return model.module.encode(audio_BCN).audio_codes


def stream_in(model: Any, audio_BCN: Tensor) -> Tensor:
    """Codes of two frames at a time, each call with the caches that the one before gave."""
    caches: dict[str, Any] = {"encoder_past_key_values": None, "padding_cache": None}
    parts = []
    for chunk_BCN in audio_BCN.split(2 * FRAME, dim=-1):
        coded = model.module.encode(chunk_BCN, use_streaming=True, **caches)
        caches = {name: coded[name] for name in caches}
        parts.append(coded.audio_codes)
    return torch.cat(parts, dim=-1)


def stream_out(model: Any, codes_BKT: Tensor) -> Tensor:
    """Sound of two frames at a time. The library keeps what the transformer saw, not what the convolutions saw."""
    cache, parts = transformers.DynamicCache(), []
    for chunk_BKT in codes_BKT.split(2, dim=-1):
        decoded = model.module.decode(chunk_BKT, decoder_past_key_values=cache)
        cache = decoded.decoder_past_key_values
        parts.append(decoded.audio_values)
    return torch.cat(parts, dim=-1)


WAYS = {
    "forward": Way(lambda model, audio_BCN: model.module(audio_BCN)),
    "forward as a tuple": Way(lambda model, audio_BCN: model.module(audio_BCN, return_dict=False)),
    "two codebooks": Way(lambda model, audio_BCN: model.module(audio_BCN, num_quantizers=2)),
    "forward of codes": Way(
        lambda model, given: model.module(given[0], audio_codes=given[1]),
        DECODER,
        given=lambda model, audio_BCN: (audio_BCN, codes(model, audio_BCN)),
    ),
    "encode": Way(lambda model, audio_BCN: model.module.encode(audio_BCN), ENCODER),
    "decode": Way(lambda model, codes_BKT: model.module.decode(codes_BKT), DECODER, given=codes),
    "the encoder alone": Way(lambda model, audio_BCN: model.module.encoder(input_values=audio_BCN), ENCODER),
    "the decoder alone": Way(
        lambda model, latents_BDT: model.module.decoder(latents=latents_BDT),
        DECODER,
        given=lambda model, audio_BCN: model.module.encoder(audio_BCN).latents,
    ),
    "encode in a stream": Way(stream_in, ENCODER),
    "decode in a stream": Way(stream_out, DECODER, given=codes),
    "stream": Way(lambda model, audio_BCN: stream_out(model, stream_in(model, audio_BCN))),
    "past the quantiser": Way(lambda model, audio_BCN: model.decode(model.encode(audio_BCN))),
}

# six frames: a stream has no end that is filled up
CASES = [Case("mimi", build, WAYS, save, seconds=6 * FRAME / 24_000)]
