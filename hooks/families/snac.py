"""SNAC (arXiv 2410.14411): the `snac` package, at 24, 32 and 44.1 kHz.

Sites: `encoder.N` (0: first convolution, then a block for each stride, at 32 and 44.1 kHz local attention, the last
convolution), `latent` (what the encoder gives, before the quantiser, whose codebooks have rates of their own),
`decoder_input` (what the decoder gets, behind it) and `decoder.N` (first convolutions, attention, blocks, snake, last
convolution, tanh).

The model fills a sound up to whole frames of its coarsest codebook and whole windows of its attention: 85 ms at 24 kHz,
384 ms at 32 kHz, 279 ms at 44.1 kHz. `run` says where the sound ends.

The decoder adds noise, also in evaluation mode. Calls of the module itself draw it anew each time; `run`, `decode` and
what is built on them draw the same noise at every call and for every row of a batch, so that two outputs differ by an
edit and nothing else.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hooks.attach import attach
from hooks.errors import ModelError, require
from hooks.families.conv_sites import children_of, conv_sites
from hooks.family import Family
from hooks.hub import download
from hooks.model import Codec
from hooks.opening import opening, read_config
from hooks.site import Site
from hooks.timing import current_time, sound_until
from hooks.weights import read_state

SIZES = ("24khz", "32khz", "44khz")
NAMES = tuple(f"snac:{size}" for size in SIZES)


class SnacCodec(Codec):
    """`snac.SNAC`."""

    module: Any

    def __init__(self, module: Any, name: str = "") -> None:
        self.hop_length, sample_rate, width = int(module.hop_length), module.sampling_rate, module.latent_dim
        window = math.lcm(module.vq_strides[0], module.attn_window_size or 1)
        # long sounds are cut between windows, where the model would cut them
        self.chunk_s = window * self.hop_length / sample_rate
        # convolutions reach 0.42 s at 24 kHz; two rounds of attention with convolutions between them see three windows
        self.context_s = max(0.5, 3 * self.chunk_s)
        rate = sample_rate / self.hop_length
        sites = [
            *conv_sites(module, "encoder", children_of(module, "encoder.block"), sample_rate),
            Site("latent", "encoder", "BDT", width=width, frame_rate=rate),
            Site("decoder_input", "decoder", "BDT", "input", 0, width, rate),
            *conv_sites(module, "decoder", children_of(module, "decoder.model"), sample_rate, self.hop_length),
        ]
        super().__init__(module, sites, name=name or f"snac:{sample_rate // 1000}khz", sample_rate=sample_rate)

    def encode(self, audio_BCN: Tensor) -> Tensor:
        """Latent [B, T, D], with the frames up to the end of the last window."""
        return self.module.encoder(self.module.preprocess(audio_BCN)).transpose(1, 2)

    def decode(self, z_BTD: Tensor) -> Tensor:
        """Audio [B, 1, T * hop_length].

        Raises:
            ModelError: the frames do not make whole windows of the attention.
        """
        if z_BTD.shape[1] % (self.module.attn_window_size or 1):
            raise ModelError(
                f"{self.name}: {z_BTD.shape[1]} frames do not make windows of {self.module.attn_window_size} frames"
            )
        with self._same_noise():
            return self.module.decoder(z_BTD.transpose(1, 2))

    def _run(self, audio_BCN: Tensor) -> Tensor:
        samples = audio_BCN.shape[-1]
        assert self.sample_rate is not None
        with self._same_noise(), sound_until((current_time() or 0.0) + samples / self.sample_rate):
            if self.quantize:
                return self.module(audio_BCN)[0]
            return self.module.decoder(self.module.encoder(self.module.preprocess(audio_BCN)))[..., :samples]

    @contextmanager
    def _same_noise(self) -> Iterator[None]:
        """A noise block gives x + noise * linear(x). Here its own noise meets zeros, and ours is added behind it."""
        with ExitStack() as stack:
            for path, block in self.module.named_modules():
                if type(block).__name__ == "NoiseBlock":
                    noise = Noise()
                    stack.enter_context(attach(self.module, Site(path, f"{path}.linear", "BDT"), noise.hold))
                    stack.enter_context(attach(self.module, Site(path, path, "BDT"), noise.add))
            yield


class Noise:
    """What the linear layer of a noise block gives, kept until the block is done: one after another where the rows of
    the batch come in several parts (`hooks.timing`)."""

    def __init__(self) -> None:
        self.scales: deque[Tensor] = deque()

    def hold(self, scale_BTD: Tensor) -> Tensor:
        self.scales.append(scale_BTD)
        return torch.zeros_like(scale_BTD)

    def add(self, x_BTD: Tensor) -> Tensor:
        noise_T = torch.randn(x_BTD.shape[1], generator=torch.Generator().manual_seed(x_BTD.shape[2]))
        return x_BTD + noise_T.to(x_BTD)[:, None] * self.scales.popleft()


def knows(folder: Path, config: dict[str, Any]) -> bool:
    """SNAC's own `config.json`, which does not say what it is of."""
    return {"sampling_rate", "encoder_rates", "decoder_rates", "vq_strides"} <= config.keys()


def open_name(size: str, name: str) -> Codec:
    """`snac:24khz` and the like: the author's repository on the hub.

    Raises:
        ModelError: another size, or the weights can be had neither from the cache nor from the network.
    """
    if size not in SIZES:
        raise ModelError(f"unknown model {name!r}; there are {', '.join(NAMES)}")
    return open_folder(download(f"hubertsiuzdak/snac_{size}"), name)


def open_folder(folder: Path, name: str) -> Codec:
    """A folder with SNAC's `config.json` and its weights, which its own `from_pretrained` would unpickle.

    Raises:
        ModelError: the configuration or the weights do not fit or cannot be read.
    """
    snac = require("snac", "snac")
    state = read_state(folder)
    with opening(name, "a SNAC"):
        module = snac.SNAC(**read_config(folder))
        module.load_state_dict(state)
    return SnacCodec(module, name)


FAMILY = Family(
    "snac",
    names=NAMES,
    classes=("snac.snac.SNAC",),
    libraries=("snac",),
    wrap=SnacCodec,
    open_name=open_name,
    open_folder=open_folder,
    knows=knows,
)
