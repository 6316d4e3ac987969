"""WavTokenizer: published checkpoints and the project's own small ones (among them `starter:codec`).

Sites: `encoder.N` (layers of the SEANet encoder), `latent` (what it gives, before the quantiser), `decoder_input`
(what the Vocos backbone gets), `decoder.N` (its ConvNeXt blocks) and `decoder_output` (what the ISTFT head gets).
"""

from __future__ import annotations

import json
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from hooks.errors import ModelError, one_line
from hooks.model import Codec
from hooks.networks.seanet import PaddedConv1d
from hooks.networks.wavtokenizer import WavTokenizer, WavTokenizerConfig
from hooks.site import Site

CLASSES = ("hooks.networks.wavtokenizer.WavTokenizer",)
NAMES: tuple[str, ...] = ()
ENCODER = "feature_extractor.encodec.encoder"
UNREADABLE = (TypeError, KeyError, ValueError, RuntimeError, OSError, EOFError, SafetensorError, UnpicklingError)


class WavTokenizerCodec(Codec):
    """A `WavTokenizer` module; `quantize=False` (the project's own models) goes through the continuous latent."""

    module: WavTokenizer

    def __init__(self, module: WavTokenizer, name: str = "", quantize: bool = True) -> None:
        config = module.config
        self.hop_length, self.quantize = config.hop_length, quantize
        rate = float(config.sample_rate)
        stages = []
        for index, layer in enumerate(module.encoder.model):
            if isinstance(layer, PaddedConv1d):
                rate /= layer.stride
            stages.append(Site(f"encoder.{index}", f"{ENCODER}.model.{index}", "BDT", frame_rate=rate))
        sites = [
            *stages,
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

    @torch.no_grad()
    def run(self, audio_BCN: Tensor) -> Tensor:
        return self.module(audio_BCN[:, 0], quantize=self.quantize)[:, None]


def wrap(module: WavTokenizer, name: str = "") -> Codec:
    return WavTokenizerCodec(module, name)


def open_folder(folder: Path, name: str) -> Codec:
    """A folder with `config.json` (the fields of `WavTokenizerConfig`) and `model.safetensors` or a published `.ckpt`.

    Raises:
        ModelError: the configuration or the weights do not fit or cannot be read.
    """
    values: dict[str, Any] = json.loads((folder / "config.json").read_text())
    values.pop("architecture", None)
    quantize = bool(values.pop("quantize", True))
    try:
        module = WavTokenizer(WavTokenizerConfig.from_dict(values))
        module.load_checkpoint_(read_weights(folder))
    except UNREADABLE as error:
        raise ModelError(f"{name}: not a WavTokenizer that can be opened ({one_line(error)})") from error
    return WavTokenizerCodec(module, name, quantize)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The state dict in a folder, in fp32; pickled checkpoints are read as tensors only."""
    weights = folder / "model.safetensors"
    if weights.exists():
        return {key: value.float() for key, value in load_file(weights).items()}
    checkpoints = sorted([*folder.glob("*.ckpt"), *folder.glob("*.pt"), *folder.glob("*.bin")])
    if not checkpoints:
        raise ModelError(f"{folder}: no model.safetensors, .ckpt, .pt or .bin file")
    state = torch.load(checkpoints[0], map_location="cpu", weights_only=True)
    return state.get("state_dict", state)
