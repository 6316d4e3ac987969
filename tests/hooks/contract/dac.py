"""DAC at 16, 24 and 44.1 kHz, both implementations; reduced in width, with the published strides."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.hooks.contract.case import PUBLISHED, Case, Way

dac = pytest.importorskip("dac", reason="extra dac")
transformers = pytest.importorskip("transformers", reason="extra dac")
audiotools = pytest.importorskip("audiotools", reason="extra dac")

RATES = {16_000: ([2, 4, 5, 8], 12), 24_000: ([2, 4, 5, 8], 32), 44_100: ([2, 4, 8, 8], 9)}
"""Strides and number of codebooks of the published models."""
ENCODER, DECODER = ("encoder.*", "latent"), ("decoder_input", "decoder.*")


def package(rate: int, published: bool = PUBLISHED) -> Any:
    strides, books = RATES[rate]
    reduced = {} if published else {"encoder_dim": 8, "decoder_dim": 64, "codebook_size": 64}
    return dac.DAC(
        encoder_rates=strides,
        decoder_rates=strides[::-1],
        n_codebooks=books if published else 4,
        sample_rate=rate,
        quantizer_dropout=True,
        **reduced,
    )


@torch.no_grad()
def of_transformers(rate: int, published: bool = PUBLISHED) -> Any:
    strides, books = RATES[rate]
    reduced = {} if published else {"encoder_hidden_size": 8, "decoder_hidden_size": 64, "codebook_size": 64}
    config = transformers.DacConfig(
        downsampling_ratios=strides, n_codebooks=books if published else 4, sampling_rate=rate, **reduced
    )
    module = transformers.DacModel(config)
    # the library starts with weights so small that nothing of the sound is left at the end
    for part in module.modules():
        if isinstance(part, nn.Conv1d | nn.ConvTranspose1d | nn.Embedding):
            part.reset_parameters()
    return module


def save_to_folder(module: Any, folder: Path) -> str:
    module.save_to_folder(folder, package=False)
    return f"dac:{folder}"


def save_pretrained(module: Any, folder: Path) -> str:
    module.save_pretrained(folder)
    return str(folder)


def signal(model: Any, audio_BCN: Tensor, times: int = 1) -> Any:
    return audiotools.AudioSignal(audio_BCN.repeat(1, 1, times), model.sample_rate)


def encoded(model: Any, audio_BCN: Tensor) -> Any:
    return model.module.encode(model.module.preprocess(audio_BCN, model.sample_rate))


PACKAGE = {
    "forward": Way(lambda model, audio_BCN: model.module(audio_BCN)),
    "forward with a low bit rate": Way(lambda model, audio_BCN: model.module(audio_BCN, n_quantizers=2)),
    "encode": Way(encoded, ENCODER),
    "decode": Way(
        lambda model, z_BDT: model.module.decode(z_BDT),
        DECODER,
        given=lambda model, audio_BCN: encoded(model, audio_BCN)[0],
    ),
    "decode codes": Way(
        lambda model, codes: model.module.decode(model.module.quantizer.from_codes(codes)[0]),
        DECODER,
        given=lambda model, audio_BCN: encoded(model, audio_BCN)[1],
    ),
    "compress": Way(lambda model, given: model.module.compress(given), ENCODER, given=signal),
    "decompress": Way(
        lambda model, coded: model.module.decompress(coded),
        DECODER,
        given=lambda model, audio_BCN: model.module.compress(signal(model, audio_BCN)),
    ),
    # more than a second goes window by window, without the padding of the convolutions
    "compress in windows": Way(
        lambda model, given: model.module.compress(given), ENCODER, None, given=partial(signal, times=4)
    ),
    "decompress in windows": Way(
        lambda model, coded: model.module.decompress(coded),
        DECODER,
        None,
        given=lambda model, audio_BCN: model.module.compress(signal(model, audio_BCN, times=4)),
    ),
}
TRANSFORMERS = {
    "forward": Way(lambda model, audio_BCN: model.module(audio_BCN)),
    "forward as a tuple": Way(lambda model, audio_BCN: model.module(audio_BCN, return_dict=False)),
    "forward with a low bit rate": Way(lambda model, audio_BCN: model.module(audio_BCN, n_quantizers=2)),
    "encode": Way(lambda model, audio_BCN: model.module.encode(audio_BCN), ENCODER),
    "decode": Way(
        lambda model, coded: model.module.decode(coded.quantized_representation),
        DECODER,
        given=lambda model, audio_BCN: model.module.encode(audio_BCN),
    ),
    "decode codes": Way(
        lambda model, coded: model.module.decode(audio_codes=coded.audio_codes),
        DECODER,
        given=lambda model, audio_BCN: model.module.encode(audio_BCN),
    ),
}

# no whole frames: of those the package's decompress fails at 16 and 24 kHz, where its output is 8 samples short
SECONDS = 0.31
# at 16 kHz only the number of codebooks is another than at 24 kHz
CASES = [
    case
    for rate in (RATES if PUBLISHED else (24_000, 44_100))
    for case in (
        Case(f"dac package {rate} Hz", partial(package, rate), PACKAGE, save_to_folder, SECONDS),
        Case(f"dac transformers {rate} Hz", partial(of_transformers, rate), TRANSFORMERS, save_pretrained, SECONDS),
    )
]
