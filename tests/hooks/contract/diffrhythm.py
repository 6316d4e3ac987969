"""DiffRhythm's VAE, scripted here: its file has the two methods and the network of Stable Audio Open's VAE.

The published size is diffusers' own network, without weight norm, which cannot be scripted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.hooks.contract.case import PUBLISHED, Case, Way

STRIDES = (2, 4, 4, 8, 8)
NARROW = 8


class Snake(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.sin(x).pow(2)


class Exported(nn.Module):
    """The two methods, as the published file has them."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    @torch.jit.export
    def encode_export(self, audio: Tensor) -> Tensor:
        return self.encoder(audio)

    @torch.jit.export
    def decode_export(self, latent: Tensor) -> Tensor:
        return self.decoder(latent)

    def forward(self, audio: Tensor) -> Tensor:
        return self.decode_export(self.encode_export(audio)[:, :64])


def small() -> Exported:
    """The published strides, channels and latent, and nothing between them."""
    down: list[nn.Module] = [nn.Conv1d(2, NARROW, 7, padding=3)]
    up: list[nn.Module] = [nn.Conv1d(64, NARROW, 7, padding=3)]
    for stride in STRIDES:
        down += [Snake(), nn.Conv1d(NARROW, NARROW, 2 * stride, stride, padding=stride // 2)]
    for stride in reversed(STRIDES):
        up += [Snake(), nn.ConvTranspose1d(NARROW, NARROW, 2 * stride, stride, padding=stride // 2)]
    return Exported(
        nn.Sequential(*down, nn.Conv1d(NARROW, 128, 3, padding=1)),
        nn.Sequential(*up, nn.Conv1d(NARROW, 2, 7, padding=3, bias=False)),
    )


def published() -> Exported:
    oobleck = pytest.importorskip("diffusers", reason="extra vae").AutoencoderOobleck()
    for module in oobleck.modules():
        if hasattr(module, "weight_g"):
            nn.utils.remove_weight_norm(module)
    return Exported(oobleck.encoder, oobleck.decoder)


def build() -> Any:
    return torch.jit.script(published() if PUBLISHED else small())


def save(module: Any, folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    torch.jit.save(module.script, folder / "vae_model.pt")
    return f"diffrhythm:{folder / 'vae_model.pt'}"


def mean(model: Any, audio_BCN: Tensor) -> Tensor:
    return model.module.script.encode_export(audio_BCN)[:, :64]


def drawn(model: Any, audio_BCN: Tensor) -> Tensor:
    """As DiffRhythm's inference does with a reference."""
    mean_BDT, scale_BDT = model.encode_export(audio_BCN).chunk(2, dim=1)
    return model.decode_export(mean_BDT + torch.randn_like(mean_BDT) * (nn.functional.softplus(scale_BDT) + 1e-4))


WAYS = {
    "forward": Way(lambda model, audio_BCN: model(audio_BCN)),
    "encode_export": Way(lambda model, audio_BCN: model.encode_export(audio_BCN), ("latent",)),
    "decode_export": Way(lambda model, z_BDT: model.decode_export(z_BDT), ("decoder_*",), given=mean),
    "encode, sample, decode": Way(drawn),
}
CASES = [Case("DiffRhythm's VAE", build, WAYS, save, seconds=8 * 2048 / 44_100)]
