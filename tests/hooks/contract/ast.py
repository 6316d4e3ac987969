"""AST, bare and with its classifier. Reduced, it keeps the published patches and window: 1214 tokens for 10.24 s."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.hooks.contract.case import PUBLISHED, Case, Way

transformers = pytest.importorskip("transformers", reason="extra ssl")
pytest.importorskip("torchaudio", reason="AST's spectrograms")

SIZE: dict[str, Any] = (
    {} if PUBLISHED else {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}
)


def build(head: str) -> Any:
    module = getattr(transformers, f"AST{head}")(transformers.ASTConfig(num_labels=527 if PUBLISHED else 4, **SIZE))
    with torch.no_grad():
        # the library starts positions at zero
        module.base_model.embeddings.position_embeddings.normal_(0, 0.02)
    return module


def save(module: Any, folder: Path) -> str:
    module.save_pretrained(folder)
    transformers.ASTFeatureExtractor().save_pretrained(folder)
    return str(folder)


def spectrogram(model: Any, audio_BCN: Tensor) -> Tensor:
    rows = list(audio_BCN[:, 0].float().numpy())
    own = transformers.ASTFeatureExtractor()(rows, sampling_rate=16_000, return_tensors="pt")
    return own.input_values.to(model.dtype)


def forward(model: Any, values: Tensor, **options: Any) -> Any:
    return model(values, **options)


WAYS = {
    "forward": Way(forward, given=spectrogram),
    "forward by name": Way(lambda model, values: model(input_values=values), given=spectrogram),
    "forward as a tuple": Way(partial(forward, return_dict=False), given=spectrogram),
}
CASES = [
    Case(f"AST {head}", partial(build, head), WAYS, save, seconds=0.5) for head in ("Model", "ForAudioClassification")
]
