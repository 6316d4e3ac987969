"""EnCodec (arXiv 2210.13438): the `encodec` package and transformers' `EncodecModel`, at 24 kHz mono and 48 kHz stereo.

Sites: `encoder.N` and `decoder.N` (the N-th layer of the two stacks), `latent` (what the encoder gives, before the
quantiser) and `decoder_input` (what the decoder gets, behind it). The 48 kHz model works on chunks of one second, each
normalised by its own level; its sites are passed once per chunk.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hooks.attach import at_time, current_time
from hooks.errors import ModelError, require
from hooks.model import Codec
from hooks.site import Site

CLASSES = ("encodec.model.EncodecModel", "transformers.models.encodec.modeling_encodec.EncodecModel")
NAMES = ("encodec:24khz", "encodec:48khz", "hf:facebook/encodec_24khz", "hf:facebook/encodec_48khz")


def stack_sites(model: nn.Module, stack: str, rate: float, chunk_s: float | None) -> Iterator[Site]:
    """A site for each layer of a SEANet stack, with the frame rate that its strides make."""
    for index, layer in enumerate(model.get_submodule(stack)):  # type: ignore[arg-type]
        for module in layer.modules():
            if isinstance(module, nn.ConvTranspose1d):
                rate *= module.stride[0]
            elif isinstance(module, nn.Conv1d):
                rate /= module.stride[0]
        side = stack.split(".")[0]
        yield Site(f"{side}.{index}", f"{stack}.{index}", "BDT", frame_rate=rate, chunk_s=chunk_s)


class _Encodec(Codec):
    """What both implementations share."""

    stacks: tuple[str, str]

    def __init__(self, module: Any, name: str, width: int, hop_length: int, chunk_s: float | None, **fields: Any) -> None:
        self.hop_length, self.chunk_s = hop_length, chunk_s
        rate = fields["sample_rate"]
        encoder, decoder = self.stacks
        sites = [
            *stack_sites(module, encoder, rate, chunk_s),
            Site("latent", "encoder", "BDT", width=width, frame_rate=rate / hop_length, chunk_s=chunk_s),
            Site("decoder_input", "decoder", "BDT", "input", 0, width, rate / hop_length, chunk_s),
            *stack_sites(module, decoder, rate / hop_length, chunk_s),
        ]
        super().__init__(module, sites, name=name, **fields)

    def _chunks(self, samples: int) -> Iterator[tuple[int, int]]:
        raise TypeError

    def encode(self, audio_BCN: Tensor) -> Tensor:
        """Latent [B, T, D]; of the 48 kHz model the chunks' latents one behind the other, levels not kept.

        Raises:
            ModelError: the model normalises chunks, so its latent alone does not hold the sound (use `run`).
        """
        self._require_plain("encode")
        return self.module.encoder(audio_BCN).transpose(1, 2)

    def decode(self, z_BTD: Tensor) -> Tensor:
        self._require_plain("decode")
        return self.module.decoder(z_BTD.transpose(1, 2))

    def _require_plain(self, verb: str) -> None:
        if self.chunk_s is not None:
            raise ModelError(f"{self.name}: this model normalises each second by itself; use run or resynthesize, not {verb}")


class EncodecPackage(_Encodec):
    """`encodec.EncodecModel`. Set the bit rate with its own `set_target_bandwidth`."""

    stacks = ("encoder.model", "decoder.model")

    def __init__(self, module: Any, name: str = "") -> None:
        hop = math.prod(module.encoder.ratios)
        chunk_s = None if module.segment is None else module.segment_stride / module.sample_rate
        super().__init__(
            module,
            name or f"encodec:{module.sample_rate // 1000}khz",
            module.encoder.dimension,
            hop,
            chunk_s,
            sample_rate=module.sample_rate,
            channels=module.channels,
        )

    @torch.no_grad()
    def run(self, audio_BCN: Tensor) -> Tensor:
        samples = audio_BCN.shape[-1]
        if not self.quantize:
            return self.decode(self.encode(audio_BCN))[..., :samples]
        if self.chunk_s is None:
            return self.module.decode(self.module.encode(audio_BCN))[..., :samples]
        # the package's own loop over chunks, but with the time of each chunk known to edits
        start = current_time() or 0.0
        frames, outputs = [], []
        for offset in range(0, samples, self.module.segment_stride):
            with at_time(start + offset / self.module.sample_rate):
                chunk = audio_BCN[..., offset : offset + self.module.segment_length]
                frames.append(self.module._encode_frame(chunk))
        for index, frame in enumerate(frames):
            with at_time(start + index * self.chunk_s):
                outputs.append(self.module._decode_frame(frame))
        overlap_add = require("encodec.utils", "encodec")._linear_overlap_add
        return overlap_add(outputs, self.module.segment_stride or 1)[..., :samples]


class EncodecTransformers(_Encodec):
    """`transformers.EncodecModel`. `bandwidth` (kbit/s) None is the lowest, as in the library."""

    stacks = ("encoder.layers", "decoder.layers")
    bandwidth: float | None = None

    def __init__(self, module: Any, name: str = "") -> None:
        config = module.config
        hop = math.prod(config.upsampling_ratios)
        stride = config.chunk_stride
        super().__init__(
            module,
            name or "hf:encodec",
            config.hidden_size,
            hop,
            None if stride is None else stride / config.sampling_rate,
            sample_rate=config.sampling_rate,
            channels=config.audio_channels,
        )

    @torch.no_grad()
    def run(self, audio_BCN: Tensor) -> Tensor:
        samples = audio_BCN.shape[-1]
        if not self.quantize:
            return self.decode(self.encode(audio_BCN))[..., :samples]
        if self.chunk_s is None:
            coded = self.module.encode(audio_BCN, bandwidth=self.bandwidth)
            return self.module.decode(coded.audio_codes, coded.audio_scales)[0][..., :samples]
        bandwidth = self.bandwidth or self.module.config.target_bandwidths[0]
        length, stride = self.module.config.chunk_length, self.module.config.chunk_stride
        start = current_time() or 0.0
        frames, outputs = [], []
        for offset in range(0, samples, stride):
            with at_time(start + offset / self.module.config.sampling_rate):
                frames.append(self.module._encode_frame(audio_BCN[..., offset : offset + length], bandwidth))
        for index, (codes, scale) in enumerate(frames):
            with at_time(start + index * self.chunk_s):
                outputs.append(self.module._decode_frame(codes.transpose(0, 1) if codes.dim() != 3 else codes, scale))
        return self.module._linear_overlap_add(outputs, stride)[..., :samples]


def wrap(module: nn.Module, name: str = "") -> Codec:
    is_package = type(module).__module__.split(".")[0] == "encodec"
    return EncodecPackage(module, name) if is_package else EncodecTransformers(module, name)


def open_name(size: str, name: str) -> Codec:
    """`encodec:24khz` or `encodec:48khz`: the package's own download.

    Raises:
        ModelError: another size, or the weights can be had neither from the cache nor from the network.
    """
    encodec = require("encodec", "encodec")
    if size not in ("24khz", "48khz"):
        raise ModelError(f"unknown model {name!r}; there are encodec:24khz and encodec:48khz")
    try:
        module = getattr(encodec.EncodecModel, f"encodec_model_{size}")(pretrained=True)
    except OSError as error:  # urllib's errors are OSErrors
        raise ModelError(f"{name}: the weights could not be downloaded ({error}); download them once where there is a network, or open a folder") from error
    return EncodecPackage(module, name)


def open_folder(folder: Path, name: str) -> Codec:
    """A folder that `EncodecModel.save_pretrained` wrote, or its hub cache."""
    transformers = require("transformers", "encodec")
    return EncodecTransformers(transformers.EncodecModel.from_pretrained(folder), name)
