"""A codec of which all is known: its latent is the sound, frame by frame."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hooks import Site
from hooks.model import Codec
from steer import SAE, Scale, SteeredModel


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.latent = nn.Identity()


class Frames(Codec):
    """The round trip is the input to the bit. Counts how often it encodes."""

    context_s = 0.1

    def __init__(self, sample_rate: int = 24_000, hop: int = 60) -> None:
        sites = [Site("latent", "latent", width=hop, frame_rate=sample_rate / hop)]
        super().__init__(Net(), sites, name="frames", sample_rate=sample_rate)
        self.hop_length, self.encoded = hop, 0

    def encode(self, audio_BCN: Tensor) -> Tensor:
        self.encoded += 1
        padded_BCN = torch.nn.functional.pad(audio_BCN, (0, -audio_BCN.shape[-1] % self.hop_length))
        return padded_BCN.reshape(len(audio_BCN), -1, self.hop_length)

    def decode(self, z_BTD: Tensor) -> Tensor:
        return self.module.latent(z_BTD).reshape(len(z_BTD), 1, -1)

    def run(self, audio_BCN: Tensor) -> Tensor:
        return self.decode(self.encode(audio_BCN))[..., : audio_BCN.shape[-1]]

    def decode_passes(self, site: str) -> bool:
        return True


def steered(**options: Any) -> SteeredModel:
    """With an SAE whose features are the positive and the negative part of each sample."""
    codec = Frames(**options)
    width = codec.hop_length
    sae = SAE(width, 2 * width, "relu").requires_grad_(False)
    sae.W_dec.copy_(torch.cat([torch.eye(width), -torch.eye(width)]))
    sae.W_enc.copy_(sae.W_dec.T)
    return SteeredModel(codec, {"latent": sae}, check=False)


def louder(factor: float, during: Any = None, width: int = 60) -> dict[str, list[Scale]]:
    """Edits that multiply the sound by a factor."""
    return {"latent": [Scale(list(range(2 * width)), factor, during=during)]}
