"""A tiny codec with random weights, its SAE and control vectors, and made sounds; fixtures of `tests/conftest.py`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file

from hooks.networks.wavtokenizer import WavTokenizer, WavTokenizerConfig
from steer.sae import SAE, SAEInfo
from steer.vectors import ControlVector, save_vectors

CONFIG = WavTokenizerConfig(
    dimension=16,
    n_filters=4,
    bins=16,
    num_quantizers=1,
    width=32,
    hidden=48,
    num_layers=2,
    num_conditions=None,
    attention=False,
)
D_SAE = 48


@pytest.fixture(scope="session")
def codec_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A codec folder: random, but the latent's axis 0 moves the level (1 dB per 0.1) and axis 1 tilts the spectrum."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("codec")
    module = WavTokenizer(CONFIG)
    backbone, head = module.backbone, module.head
    # ones, a constant and the two axes' directions, orthogonal, so that the layer norms leave the axes (nearly) alone
    basis, _ = torch.linalg.qr(torch.cat([torch.ones(CONFIG.width, 1), torch.randn(CONFIG.width, 3)], dim=1))
    _, constant, level, tilt = basis.T
    bins = CONFIG.n_fft // 2 + 1
    with torch.no_grad():
        for block in backbone.convnext:
            block.gamma.mul_(0.1)
        backbone.embed.weight.mul_(0.3)
        backbone.embed.weight[:, :2] = 0
        backbone.embed.weight[:, 0, 3], backbone.embed.weight[:, 1, 3] = level, tilt
        backbone.embed.bias.copy_(constant * CONFIG.width**0.5)
        slope = torch.linspace(-1, 1, bins)[:, None]
        head.out.weight[:bins] = 1.15 * level + 1.15 * slope * tilt
        head.out.bias[:bins] = -1.5 - 3.0 * slope[:, 0]
        head.out.weight[bins:].mul_(20)
        # let the latent follow the sound, around zero
        last, audio_BN = module.encoder.model[-1].conv.conv, torch.from_numpy(tones(2.0)).float().T
        last.weight_g.mul_(0.3 / module.encode(audio_BN).std(dim=2).mean())
        last.bias.sub_(module.encode(audio_BN).mean(dim=(0, 2)))
    save_file(module.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(
        json.dumps({"architecture": "wavtokenizer", "quantize": False, **CONFIG.to_dict()})
    )
    return folder


@pytest.fixture(scope="session")
def sae_folder(codec_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SAE for the latent with control vectors beside it: loudness and brightness do something, pitch does not."""
    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("sae")
    sae = SAE(
        CONFIG.dimension,
        D_SAE,
        "relu",
        info=SAEInfo(model=str(codec_folder), site="latent", frame_rate=CONFIG.frame_rate),
    )
    vectors = {}
    with torch.no_grad():
        for feature, (name, unit, size) in enumerate(
            (("loudness", "1 dB", 0.1), ("brightness", "1 %", 0.01), ("pitch", "1 semitone", 0.0))
        ):
            sae.W_dec[feature] = torch.eye(CONFIG.dimension)[feature]
            vectors[name] = ControlVector(size * torch.eye(D_SAE)[feature], name, unit, "latent")
    sae.save(folder)
    save_vectors(vectors, folder / "vectors.safetensors")
    return folder


def tones(seconds: float, sample_rate: int = 24_000, channels: int = 1, seed: int = 0) -> np.ndarray:
    """A gliding harmonic tone with some noise, [n, channels], peaks about 0.4."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    columns = []
    for channel in range(channels):
        phase = 2 * np.pi * (220 * (channel + 1) * time + 8 * np.sin(time))
        voice = sum(np.sin(k * phase) / k for k in (1, 2, 3))
        columns.append(0.2 * voice * (0.6 + 0.4 * np.sin(3 * time)) + 0.01 * rng.standard_normal(len(time)))
    return np.stack(columns, axis=1)


@pytest.fixture
def sound(tmp_path: Path) -> Callable[..., Path]:
    """Writes a sound file: `sound("a.wav", seconds=1.0, sample_rate=24000, channels=1, subtype=None)`."""

    def write(
        name: str, seconds: float = 1.0, sample_rate: int = 24_000, channels: int = 1, subtype: str | None = None
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, tones(seconds, sample_rate, channels), sample_rate, subtype=subtype)
        return path

    return write
