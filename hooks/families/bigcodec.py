"""BigCodec (arXiv 2409.05377): speech at 16 kHz, 80 frames a second, by the network in `hooks/networks/bigcodec.py`.

Sites: `encoder.N` (its layers: convolution, five blocks that halve or fifth the rate, LSTM, activation, convolution),
`latent` (what the encoder gives, before the quantiser), `decoder_input` (what the decoder's network gets, behind it)
and `decoder.N` (convolution, LSTM, five blocks, activation, convolution, tanh).

The authors' script adds a whole frame of silence where the sound already fills its frames; here none is added there.
Weights that are held as modules of their code open with `BigCodec().load_checkpoint_({"CodecEnc":
encoder.state_dict(), "generator": decoder.state_dict()})` and `wrap_model`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from hooks.families.conv_sites import children_of, conv_sites
from hooks.family import Family
from hooks.hub import published_path
from hooks.model import Codec
from hooks.networks.bigcodec import BigCodec, BigCodecConfig, flat
from hooks.opening import opening
from hooks.site import Site
from hooks.weights import checked, read_checkpoint, weight_files

PUBLISHED = {"16khz": ("Alethia/BigCodec", "bigcodec.pt")}
"""Hub repository and file of the published model."""


class BigCodecCodec(Codec):
    """A `BigCodec` module; `quantize=False` goes through the continuous latent."""

    module: BigCodec

    def __init__(self, module: BigCodec, name: str = "") -> None:
        config = module.config
        self.hop_length = config.hop_length
        coded: dict[str, Any] = {"width": config.dimension, "frame_rate": config.frame_rate}
        sites = [
            *conv_sites(module, "encoder", children_of(module, "encoder.block"), config.sample_rate),
            Site("latent", "encoder", "BDT", **coded),
            Site("decoder_input", "decoder.model", "BDT", "input", 0, **coded),
            *conv_sites(module, "decoder", children_of(module, "decoder.model"), config.sample_rate, config.hop_length),
        ]
        super().__init__(module, sites, name=name or "bigcodec", sample_rate=config.sample_rate)

    def encode(self, audio_BCN: Tensor) -> Tensor:
        return self.module.encode(audio_BCN[:, 0]).transpose(1, 2)

    def decode(self, z_BTD: Tensor) -> Tensor:
        return self.module.decode(z_BTD.transpose(1, 2))[:, None]

    def _run(self, audio_BCN: Tensor) -> Tensor:
        return self.module(audio_BCN[:, 0], quantize=self.quantize)[:, None]


def open_name(rest: str, name: str) -> Codec:
    """`bigcodec:16khz` (the published model), or `bigcodec:` and the path of a checkpoint or a folder with one.

    Raises:
        ModelError: there is no such model, it is neither in the cache nor can it be downloaded, or its file is
            no BigCodec.
    """
    path = published_path(rest, name, PUBLISHED)
    return open_folder(path, name) if path.is_dir() else open_weights(path, name)


def open_folder(folder: Path, name: str) -> Codec:
    """A folder with one checkpoint."""
    return open_weights(weight_files(folder)[0], name)


def open_weights(path: Path, name: str) -> Codec:
    """The published checkpoint or the state dict of a `BigCodec`; its shapes tell the configuration.

    Raises:
        ModelError: it cannot be read, or does not fit.
    """
    checkpoint = read_checkpoint(path)
    with opening(name, "a BigCodec"):
        state = checked(flat(checkpoint), path)
        module = BigCodec(BigCodecConfig.of_checkpoint(state))
        module.load_checkpoint_(state)
    return BigCodecCodec(module, name)


FAMILY = Family(
    "bigcodec",
    names=tuple(f"bigcodec:{size}" for size in PUBLISHED),
    classes=("hooks.networks.bigcodec.BigCodec",),
    wrap=BigCodecCodec,
    open_name=open_name,
    open_folder=open_folder,
)
