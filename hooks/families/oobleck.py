"""Stable Audio Open's VAE (arXiv 2407.14358): diffusers' `AutoencoderOobleck`, 44.1 kHz stereo, 21.5 frames a second.

Sites, in the order in which they are passed:

- `encoder.N`: the N-th layer of the encoder (a convolution, five blocks, Snake, a convolution). The last of them gives
  mean and scale of a Gaussian side by side, 128 wide.
- `latent`: the mean, 64 wide, which is what `encode` returns and `decode` takes. SAEs are put here.
- `decoder_input`: what the decoder gets, 64 wide, and `decoder.N`: the N-th layer of the decoder.

There is no quantiser, so that an SAE for `latent` fits `decoder_input` too. The two differ where the library draws a
sample (an edit at `latent` moves the mean, the noise comes on top of it) and behind a diffusion model, which calls the
decoder alone and passes only `decoder_input`. arXiv 2510.23802 says of its SAEs "the latent" and not whether that is
the mean or a sample; its sizes, up to 256 times the input and 16384, are those of 64 numbers. Here everything that has
no word of its own for it takes the mean, so that the same sound gives the same output every time.

With the library's `enable_tiling` a long sound goes through encoder and decoder in overlapping tiles, and a site is
passed once per tile, frames of the overlap twice. `run`, `resynthesize`, `encode` and `decode` of this class know the
time of each tile, and calling the model does where tiling is off. The library's own methods (`model.module.encode`, a
pipeline) do not: edits with `during` or curves are refused there, unless the time is said with `at_time`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hooks.errors import ModelError, SiteError, require
from hooks.families.conv_sites import children_of, conv_sites
from hooks.family import Family
from hooks.hub import download
from hooks.model import Codec
from hooks.opening import opening, read_config
from hooks.site import Site
from hooks.timing import at_time, current_time, sound_until
from hooks.weights import read_state


@dataclass(frozen=True)
class MeanSite(Site):
    """The mean alone, [B, T, D], where a module gives mean and scale side by side, [B, T, 2 D]."""

    def read(self, value: Any) -> Tensor:
        return super().read(value).chunk(2, dim=2)[0]

    def write(self, value: Any, x_BTD: Tensor) -> Any:
        # a copy that lies in memory as before: noise that a library draws like the mean is filled in that order
        changed_BTD = super().read(value).clone()
        mean_BTD = changed_BTD.chunk(2, dim=2)[0]
        if x_BTD.shape != mean_BTD.shape:
            raise SiteError(
                f"site {self.name!r}: the change has shape {list(x_BTD.shape)}, the activation {list(mean_BTD.shape)}"
            )
        changed_BTD[..., : mean_BTD.shape[2]] = x_BTD
        return super().write(value, changed_BTD)


class OobleckVAE(Codec):
    """An `AutoencoderOobleck`. Batches are taken whole, also with the library's `enable_slicing`."""

    module: Any
    quantize = has_quantizer = False

    def __init__(self, module: Any, name: str = "") -> None:
        config = module.config
        self.hop_length, width = module.hop_length, config.decoder_input_channels
        sample_rate, rate = config.sampling_rate, config.sampling_rate / module.hop_length
        encoder_s = decoder_s = None
        if hasattr(module, "use_tiling"):  # which may be turned on at any time; older releases cannot
            encoder_s = (module.tile_sample_min_length - 2 * module.tile_sample_overlap) / sample_rate
            decoder_s = (module.tile_latent_min_length - 2 * module.tile_latent_overlap) / rate
        encoder, decoder = (
            [f"{side}.conv1", *children_of(module, f"{side}.block"), f"{side}.snake1", f"{side}.conv2"]
            for side in ("encoder", "decoder")
        )
        sites = [
            *conv_sites(module, "encoder", encoder, sample_rate, chunk_s=encoder_s),
            MeanSite("latent", "encoder", "BDT", width=width, frame_rate=rate, chunk_s=encoder_s),
            Site("decoder_input", "decoder", "BDT", "input", 0, width, rate, decoder_s),
            *conv_sites(module, "decoder", decoder, sample_rate, self.hop_length, decoder_s),
        ]
        super().__init__(module, sites, name=name or "oobleck", sample_rate=sample_rate, channels=config.audio_channels)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._tiling:
            return self.module(*args, **kwargs)
        with at_time(current_time() or 0.0):
            return self.module(*args, **kwargs)

    @property
    def _tiling(self) -> bool:
        return getattr(self.module, "use_tiling", False)

    def encode(self, audio_BCN: Tensor) -> Tensor:
        """The mean [B, T, D]. The end is filled up with silence to whole frames."""
        module, samples = self.module, audio_BCN.shape[-1]
        filled_BCN = nn.functional.pad(audio_BCN, (0, -samples % self.hop_length))
        tile = None
        if self._tiling and samples > module.tile_sample_min_length:
            tile = (module.tile_sample_min_length, module.tile_sample_overlap)
        assert self.sample_rate is not None
        gaussian_BDT = in_tiles(module.encoder, filled_BCN, self.sample_rate, tile)
        return gaussian_BDT.chunk(2, dim=1)[0].transpose(1, 2)

    def decode(self, z_BTD: Tensor) -> Tensor:
        module, tile = self.module, None
        if self._tiling and z_BTD.shape[1] > module.tile_latent_min_length:
            tile = (module.tile_latent_min_length, module.tile_latent_overlap)
        return in_tiles(module.decoder, z_BTD.transpose(1, 2), self.frame_rate, tile)

    def _run(self, audio_BCN: Tensor) -> Tensor:
        samples = audio_BCN.shape[-1]
        assert self.sample_rate is not None
        with sound_until((current_time() or 0.0) + samples / self.sample_rate):
            return self.decode(self.encode(audio_BCN))[..., :samples]


def in_tiles(
    stack: Callable[[Tensor], Tensor], x_BDN: Tensor, rate: float, tile: tuple[int, int] | None = None
) -> Tensor:
    """`x` at `rate` Hz through encoder or decoder, whole or in tiles of so many steps with an overlap on both sides.

    These are the library's own tiles, but the time of each is known to edits.

    Raises:
        ModelError: the overlaps leave nothing of a tile.
    """
    start_s, steps = current_time() or 0.0, x_BDN.shape[-1]
    length, overlap = tile or (steps, 0)
    core = length - 2 * overlap
    if core < 1:
        raise ModelError(f"a tile of {length} with an overlap of {overlap} on both sides has nothing left of its own")
    outputs = []
    for start in range(0, steps, core):
        end = min(start + core, steps)
        first, last = max(0, start - overlap), min(end + overlap, steps)
        with at_time(start_s + first / rate):
            output = stack(x_BDN[..., first:last])
        if start == 0:
            ratio = (last - first) / output.shape[-1]
        cut, kept = round((start - first) / ratio), output.shape[-1] - round((last - end) / ratio)
        outputs.append(output[..., cut:kept])
    return torch.cat(outputs, dim=-1)


def open_name(rest: str, name: str) -> Codec:
    """`oobleck:owner/name` or `oobleck:/folder`: a VAE, or the one in the folder `vae` of a whole pipeline.

    Raises:
        ModelError: no such folder or repository, one that wants a login, or no VAE in it.
    """
    folder = Path(rest)
    if not folder.is_dir():
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", rest):
            raise ModelError(f"{name}: there is no folder {rest}")
        # the rest of a pipeline is many times as large
        folder = download(rest, only=["vae/*", "config.json", "diffusion_pytorch_model.safetensors"])
    if not (folder / "config.json").is_file() and (folder / "vae" / "config.json").is_file():
        folder /= "vae"
    return open_folder(folder, name)


def open_folder(folder: Path, name: str) -> Codec:
    """A folder that `AutoencoderOobleck.save_pretrained` wrote.

    Raises:
        ModelError: the configuration or the weights do not fit or cannot be read.
    """
    diffusers = require("diffusers", "vae")
    with opening(name, "an AutoencoderOobleck"):
        module = diffusers.AutoencoderOobleck.from_config(read_config(folder))
        module.load_state_dict(read_state(folder))
    return OobleckVAE(module, name)


FAMILY = Family(
    "oobleck",
    types=("oobleck", "AutoencoderOobleck"),
    names=("oobleck:stabilityai/stable-audio-open-1.0",),
    classes=("diffusers.models.autoencoders.autoencoder_oobleck.AutoencoderOobleck",),
    libraries=("diffusers",),
    extra="vae",
    wrap=OobleckVAE,
    open_name=open_name,
    open_folder=open_folder,
)
