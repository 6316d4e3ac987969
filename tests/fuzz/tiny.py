"""A codec of 8 kHz and 40 samples a frame that takes no time, and an SAE for it, as folders."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from hooks.networks.wavtokenizer import WavTokenizer, WavTokenizerConfig
from steer.sae import SAE, SAEInfo
from steer.vectors import ControlVector, save_vectors

RATE, D_IN, D_SAE = 8_000, 8, 16
CONFIG = WavTokenizerConfig(
    sample_rate=RATE,
    dimension=D_IN,
    n_filters=2,
    ratios=(5, 4, 2),
    bins=4,
    num_quantizers=1,
    width=8,
    hidden=8,
    num_layers=1,
    num_conditions=None,
    attention=False,
    n_fft=160,
)


def codec_folder(folder: Path) -> Path:
    torch.manual_seed(0)
    folder.mkdir(parents=True)
    save_file(WavTokenizer(CONFIG).state_dict(), folder / "model.safetensors")
    about = {"architecture": "wavtokenizer", "quantize": False, **CONFIG.to_dict()}
    (folder / "config.json").write_text(json.dumps(about))
    return folder


def tiny_sae(activation: str = "relu") -> SAE:
    torch.manual_seed(0)
    info = SAEInfo(model="tiny", site="latent", frame_rate=200.0, metrics={"FVU": 0.1})
    return SAE(D_IN, D_SAE, activation, 4, info=info).requires_grad_(False)


def sae_folder(folder: Path) -> Path:
    """With a control vector beside it."""
    tiny_sae().save(folder)
    save_vectors(
        {"loudness": ControlVector(torch.ones(D_SAE), "loudness", "1 dB", "latent")}, folder / "vectors.safetensors"
    )
    return folder
