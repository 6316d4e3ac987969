"""HuBERT, WavLM, wav2vec2 and MERT, with the published strides; reduced, they have three narrow layers."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.hooks.contract.case import PUBLISHED, Case, Way

transformers = pytest.importorskip("transformers", reason="extra ssl")

BASE = {"feat_extract_norm": "group", "do_stable_layer_norm": False, "conv_bias": False}
LARGE = {
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "conv_bias": True,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
}
WAVLM_LARGE = LARGE | {"conv_bias": False}
REDUCED = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": (8,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "num_buckets": 32,
}
MERT: dict[str, dict[str, Any]] = {
    "95M": BASE | {"attention_relax": -1.0},
    # layer norms come first, as in "large" models, but the front has a group norm and no bias
    "330M": LARGE | {"feat_extract_norm": "group", "conv_bias": False, "attention_relax": 32.0},
}
"""How the published sizes differ from HuBERT's defaults."""
MERT_COMMON: dict[str, Any] = {
    "architectures": ["MERTModel"],
    "model_type": "mert_model",
    "auto_map": {"AutoConfig": "configuration_MERT.MERTConfig", "AutoModel": "modeling_MERT.MERTModel"},
    "sample_rate": 24_000,
    "feature_extractor_cqt": False,
    "feature_extractor_cqt_bins": 336,
    "deepnorm": False,
}
"""What else their `config.json` says that HuBERT's does not."""


def build(family: str, head: str, config: dict[str, Any]) -> Any:
    """Like the library's constructors, in training mode."""
    config = config | ({} if PUBLISHED else REDUCED)
    return getattr(transformers, family + head)(getattr(transformers, f"{family}Config")(**config))


def build_mert(size: str) -> Any:
    return build("Hubert", "Model", MERT[size] | {"sample_rate": 24_000})


def save(module: Any, folder: Path) -> str:
    module.save_pretrained(folder)
    return str(folder)


def save_mert(module: Any, folder: Path) -> str:
    """As MERT's authors did: another `model_type`, a pickled state dict, names of the old weight norm."""
    folder.mkdir()
    config = module.config.to_dict() | MERT_COMMON
    (folder / "config.json").write_text(json.dumps(config))
    old = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    state = module.state_dict()
    for new_name, old_name in old.items():
        for key in [key for key in state if key.endswith(new_name)]:
            state[key.replace(new_name, old_name)] = state.pop(key)
    torch.save(state, folder / "pytorch_model.bin")
    extractor = transformers.Wav2Vec2FeatureExtractor(sampling_rate=24_000, return_attention_mask=True)
    extractor.save_pretrained(folder)
    return str(folder)


def forward(model: Any, audio_BN: Tensor, **options: Any) -> Any:
    return model(audio_BN, **options)


def masked(model: Any, audio_BN: Tensor) -> Any:
    return model(audio_BN, attention_mask=torch.ones_like(audio_BN, dtype=torch.long))


def mono(model: Any, audio_BCN: Tensor) -> Tensor:
    return audio_BCN[:, 0]


WAYS = {
    # 25 ms at the end make no frame, and one is lost to rounding
    "forward": Way(forward, slack=2, given=mono),
    "forward by name": Way(lambda model, audio_BN: model(input_values=audio_BN), slack=2, given=mono),
    "forward as a tuple": Way(partial(forward, return_dict=False), slack=2, given=mono),
    "attention mask": Way(masked, slack=2, given=mono),
    "embed": Way(lambda model, audio_BCN: model.embed(audio_BCN[0].float()), slack=2),
}
SECONDS = 0.3
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "HuBERT base": ("Hubert", "Model", BASE),
    "HuBERT large": ("Hubert", "Model", LARGE),
    "WavLM base": ("WavLM", "Model", BASE),
    "WavLM large": ("WavLM", "Model", WAVLM_LARGE),
    "wav2vec2 base": ("Wav2Vec2", "Model", BASE),
    "wav2vec2 large": ("Wav2Vec2", "Model", LARGE),
    "wav2vec2 base CTC": ("Wav2Vec2", "ForCTC", BASE | {"vocab_size": 32}),
}
CASES = [Case(name, partial(build, *kind), WAYS, save, SECONDS) for name, kind in KINDS.items()]
CASES += [Case(f"MERT {size}", partial(build_mert, size), WAYS, save_mert, SECONDS) for size in MERT]
