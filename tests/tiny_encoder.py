"""A fixed encoder: one layer holds the pitch of a tone, the next one only its level."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor, nn

from hooks import AudioModel, Site

RATE, WIDTH = 8_000, 24


class Bands(nn.Module):
    """The magnitudes of the lowest bands of frames of 10 ms."""

    def forward(self, audio_BCN: Tensor) -> Tensor:
        frames_BTW = audio_BCN[:, 0].unfold(1, 80, 80) * torch.hann_window(80)
        return torch.fft.rfft(frames_BTW, 160)[..., 1 : WIDTH + 1].abs()


class Level(nn.Module):
    """The same energy in each band: which of them it was in is lost."""

    def forward(self, x_BTD: Tensor) -> Tensor:
        level_BT1 = x_BTD.square().sum(-1, keepdim=True).sqrt()
        return level_BT1 * torch.linspace(0.5, 1.5, WIDTH)


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bands, self.level = Bands(), Level()

    def forward(self, audio_BCN: Tensor) -> Tensor:
        return self.level(self.bands(audio_BCN))


def tiny_encoder() -> AudioModel:
    sites = [Site(f"encoder.{n}", path, width=WIDTH, frame_rate=100.0) for n, path in enumerate(("bands", "level"))]
    return AudioModel(Layers(), sites, name="tiny", sample_rate=RATE)


def tones(folder: Path, count: int = 120, classes: int = 3) -> Path:
    """A subset `tones` of tones, whose pitch is their label; every third clip is of split test, the rest of train. A
    level at random has nothing to do with it."""
    rng = np.random.default_rng(0)
    subset = folder / "tones"
    subset.mkdir(parents=True)
    lines = ["path,split,label,speaker,group"]
    for n in range(count):
        label = n // 3 % classes
        seconds = rng.uniform(0.2, 0.5)
        tone = np.sin(2 * np.pi * (400 + 300 * label + rng.normal(0, 30)) * np.arange(int(seconds * RATE)) / RATE)
        level = 10 ** rng.uniform(-1.5, -0.5)
        noise = 0.02 * level * rng.normal(size=len(tone))
        soundfile.write(subset / f"{n}.wav", level * tone + noise, RATE)
        lines.append(f"{n}.wav,{'test' if n % 3 == 0 else 'train'},{'abc'[label]},,")
    (subset / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder
