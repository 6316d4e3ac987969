"""WavTokenizer: published checkpoints and the project's own small ones (among them `starter:wavtokenizer`).

`wavtokenizer:/path/WavTokenizer_small_320_24k_4096.ckpt` needs no configuration: the shapes in it tell 75 from 40 Hz.

Sites: `encoder.N` (layers of the SEANet encoder), `latent` (what it gives, before the quantiser), `decoder_input`
(what the Vocos backbone gets), `decoder.N` (its ConvNeXt blocks) and `decoder_output` (what the ISTFT head gets).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from hooks.families.conv_sites import children_of, conv_sites
from hooks.family import Family
from hooks.hub import published_path
from hooks.model import Codec
from hooks.networks.wavtokenizer import WavTokenizer, WavTokenizerConfig
from hooks.opening import opening, read_config
from hooks.site import Site
from hooks.weights import read_state

PUBLISHED = {
    "small-320-24k-4096": ("novateur/WavTokenizer", "WavTokenizer_small_320_24k_4096.ckpt"),
    "small-600-24k-4096": ("novateur/WavTokenizer", "WavTokenizer_small_600_24k_4096.ckpt"),
    "medium-speech-320-24k": (
        "novateur/WavTokenizer-medium-speech-75token",
        "wavtokenizer_medium_speech_320_24k_v2.ckpt",
    ),
    "medium-music-audio-320-24k": (
        "novateur/WavTokenizer-medium-music-audio-75token",
        "wavtokenizer_medium_music_audio_320_24k_v2.ckpt",
    ),
    "large-speech-320-24k": ("novateur/WavTokenizer-large-speech-75token", "wavtokenizer_large_speech_320_v2.ckpt"),
    "large-unify-600-24k": ("novateur/WavTokenizer-large-unify-40token", "wavtokenizer_large_unify_600_24k.ckpt"),
}
"""Hub repository and file of the published models: 320 samples a frame are 75 Hz, 600 are 40 Hz."""
ENCODER = "feature_extractor.encodec.encoder"


class WavTokenizerCodec(Codec):
    """A `WavTokenizer` module; `quantize=False` (the project's own models) goes through the continuous latent.

    `num_quantizers` is how many codebooks are used; None takes all.
    """

    module: WavTokenizer
    num_quantizers: int | None = None

    def __init__(self, module: WavTokenizer, name: str = "", quantize: bool = True) -> None:
        config = module.config
        self.hop_length, self.quantize = config.hop_length, quantize
        sites = [
            *conv_sites(module, "encoder", children_of(module, f"{ENCODER}.model"), config.sample_rate),
            Site("latent", ENCODER, "BDT", width=config.dimension, frame_rate=config.frame_rate),
            Site("decoder_input", "backbone", "BDT", "input", 0, config.dimension, config.frame_rate),
            *(
                Site(f"decoder.{i}", f"backbone.convnext.{i}", "BDT", width=config.width, frame_rate=config.frame_rate)
                for i in range(config.num_layers)
            ),
            Site("decoder_output", "backbone", "BTD", width=config.width, frame_rate=config.frame_rate),
        ]
        super().__init__(module, sites, name=name or "wavtokenizer", sample_rate=config.sample_rate, channels=1)

    def encode(self, audio_BCN: Tensor) -> Tensor:
        return self.module.encode(audio_BCN[:, 0]).transpose(1, 2)

    def decode(self, z_BTD: Tensor) -> Tensor:
        return self.module.decode(z_BTD.transpose(1, 2))[:, None]

    def _run(self, audio_BCN: Tensor) -> Tensor:
        return self.module(audio_BCN[:, 0], quantize=self.quantize, num_quantizers=self.num_quantizers)[:, None]


def open_name(rest: str, name: str) -> Codec:
    """`wavtokenizer:small-320-24k-4096` (a published model), or `wavtokenizer:` and the path of a checkpoint or folder.

    Raises:
        ModelError: there is no such model, it is neither in the cache nor can it be downloaded, or its file is
            no WavTokenizer.
    """
    path = published_path(rest, name, PUBLISHED)
    return open_folder(path, name) if path.is_dir() else open_weights(path, name)


def open_folder(folder: Path, name: str) -> Codec:
    """A folder with weights, and perhaps `config.json`: `quantize` and the fields of `WavTokenizerConfig`.

    Raises:
        ModelError: the configuration or the weights do not fit or cannot be read.
    """
    config, quantize = None, True
    if (folder / "config.json").is_file():
        with opening(name, "a WavTokenizer"):
            values = read_config(folder)
            quantize = bool(values.pop("quantize", True))
            config = WavTokenizerConfig.from_dict(values)
    return open_weights(folder, name, config, quantize)


def open_weights(path: Path, name: str, config: WavTokenizerConfig | None = None, quantize: bool = True) -> Codec:
    """A file or folder of weights, alone or in a checkpoint of a training; without a `config` their shapes tell it.

    Raises:
        ModelError: they cannot be read, or do not fit.
    """
    state = read_state(path)
    with opening(name, "a WavTokenizer"):
        config = config or WavTokenizerConfig.of_checkpoint(state)
        with torch.device("meta"):
            WavTokenizer(config)  # one too large for its weights is refused by `registry.room_for` before it is filled
        module = WavTokenizer(config)
        module.load_checkpoint_(state)
    return WavTokenizerCodec(module, name, quantize)


FAMILY = Family(
    "wavtokenizer",
    names=tuple(f"wavtokenizer:{size}" for size in PUBLISHED),
    classes=("hooks.networks.wavtokenizer.WavTokenizer",),
    wrap=WavTokenizerCodec,
    open_name=open_name,
    open_folder=open_folder,
)
