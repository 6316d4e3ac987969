"""A tiny model with two sites, and sounds for it."""

from __future__ import annotations

import torch
from torch import nn

from hooks import AudioModel, Clip, Site

SITES = ["fine", "coarse"]


class Tiny(nn.Module):
    """[B, 1, N] -> a fine site (one frame in 10 samples, 6 wide) and a coarse one (one in 40, 3 wide)."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Conv1d(1, 6, 10, 10)
        self.coarse = nn.Conv1d(6, 3, 4, 4)

    def forward(self, x_BCN: torch.Tensor) -> torch.Tensor:
        return self.coarse(self.fine(x_BCN))


def tiny_model(name: str = "tiny") -> AudioModel:
    torch.manual_seed(3)
    sites = [Site("fine", "fine", "BDT", frame_rate=800.0), Site("coarse", "coarse", "BDT", frame_rate=200.0)]
    return AudioModel(Tiny(), sites, name=name, sample_rate=8000)


def clips(count: int) -> list[Clip]:
    """Sounds of half a second and more, in the order of their names."""
    generator = torch.Generator().manual_seed(5)
    return [Clip(torch.rand(4000 + 40 * i, generator=generator) - 0.5, 8000, f"clip{i:03d}") for i in range(count)]
