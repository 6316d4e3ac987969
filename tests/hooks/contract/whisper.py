"""Whisper in both implementations, with the same weights. Reduced: two blocks of width 32, a window of 30 s."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.hooks.contract.case import PUBLISHED, Case, Way

whisper = pytest.importorskip("whisper", reason="extra whisper")
transformers = pytest.importorskip("transformers", reason="extra whisper")

from hooks import attach  # noqa: E402
from hooks.families.whisper.export import to_transformers, tokenizer_of  # noqa: E402

WIDTH, HEADS, LAYERS = (384, 6, 4) if PUBLISHED else (32, 2, 2)
SOT = (50_258, 50_259, 50_359, 50_363)
"""What a transcript in English without time stamps starts with."""
ENCODER, DECODER = ("encoder.*",), ("decoder.*",)
OPTIONS: dict[str, Any] = {"language": "en", "sample_len": 3, "without_timestamps": True, "fp16": False}
"""Random weights never end a sentence. Of one window the encoder hears just one pass if nothing is left to find out."""


def package() -> Any:
    module = whisper.model.Whisper(
        whisper.model.ModelDimensions(80, 1500, WIDTH, HEADS, LAYERS, 51_865, 448, WIDTH, HEADS, LAYERS)
    )
    for weight in module.parameters():
        if weight.ndim > 1:
            # large enough for what is heard to decide what is written; the library leaves positions as memory was
            nn.init.normal_(weight, std=1.7 / WIDTH**0.5)
    return module


def of_transformers() -> Any:
    return to_transformers(package())


@cache
def tokenizer() -> Any:
    return tokenizer_of(package())


def save_package(module: Any, folder: Path) -> str:
    folder.mkdir()
    torch.save({"dims": vars(module.dims), "model_state_dict": module.state_dict()}, folder / "own.pt")
    return f"whisper:{folder / 'own.pt'}"


def save_pretrained(module: Any, folder: Path) -> str:
    module.save_pretrained(folder)
    return str(folder)


def mels(model: Any, audio_BCN: Tensor) -> Tensor:
    return whisper.log_mel_spectrogram(audio_BCN[:, 0])


def prompt(mel: Tensor) -> Tensor:
    return torch.tensor([SOT]).expand(len(mel), -1)


def samples(model: Any, audio_BCN: Tensor) -> Tensor:
    return audio_BCN[0, 0]


def decode(model: Any, mel: Tensor, **options: Any) -> Any:
    return whisper.decode(model.module, mel, whisper.DecodingOptions(**OPTIONS, **options))


def run(model: Any, audio_BCN: Tensor) -> Tensor:
    """What `run` gives depends on whether somebody wants the decoder: here somebody always does."""
    with attach(model.module, model.site("decoder.0"), lambda x_BTD: None):
        return model.run(audio_BCN)


PACKAGE = {
    "run": Way(run),
    "forward": Way(lambda model, mel: model(mel, prompt(mel)), given=mels),
    "embed_audio": Way(lambda model, mel: model.embed_audio(mel), ENCODER, given=mels),
    "logits": Way(
        lambda model, heard: model.module.logits(prompt(heard), heard),
        DECODER,
        given=lambda model, audio_BCN: model.embed_audio(mels(model, audio_BCN)),
    ),
    "decode": Way(decode, given=mels),
    "decode with beams": Way(partial(decode, beam_size=2), given=mels),
    "decode, best of several": Way(partial(decode, temperature=0.5, best_of=2), given=mels),
    "transcribe": Way(lambda model, audio_N: model.transcribe(audio_N, temperature=0.0, **OPTIONS), given=samples),
    "whisper.transcribe": Way(
        lambda model, audio_N: whisper.transcribe(model.module, audio_N, temperature=0.0, **OPTIONS), given=samples
    ),
}


def generate(model: Any, features: Tensor, **options: Any) -> Any:
    options = {"language": "en", "max_new_tokens": 3, "return_dict_in_generate": True, "output_logits": True, **options}
    return model.generate(features, **options)


def with_tokenizer(model: Any, audio_BCN: Tensor) -> Tensor:
    model.tokenizer = tokenizer()
    return audio_BCN[0, 0]


TRANSFORMERS = {
    "run": Way(run),
    "forward": Way(lambda model, mel: model(mel, decoder_input_ids=prompt(mel)), given=mels),
    "encoder": Way(lambda model, mel: model.module.get_encoder()(mel), ENCODER, given=mels),
    "decoder": Way(
        lambda model, heard: model(encoder_outputs=heard, decoder_input_ids=prompt(heard[0])),
        DECODER,
        given=lambda model, audio_BCN: model.module.get_encoder()(mels(model, audio_BCN)),
    ),
    "generate": Way(generate, given=mels),
    "generate with beams": Way(partial(generate, num_beams=2), given=mels),
    "generate by chance": Way(partial(generate, do_sample=True), given=mels),
    "transcribe": Way(
        lambda model, audio_N: model.transcribe(audio_N, language="en", max_new_tokens=3), given=with_tokenizer
    ),
}
FULL_NORMS = dict.fromkeys((torch.float16, torch.bfloat16), "its layer norms compute in float32 with their own weights")
"""The package keeps weights in float32 and is given spectrograms in half precision instead."""
CASES = [
    Case("Whisper package", package, PACKAGE, save_package, 30.0, FULL_NORMS),
    Case("Whisper transformers", of_transformers, TRANSFORMERS, save_pretrained, seconds=30.0),
]
