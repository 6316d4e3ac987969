"""EnCodec (arXiv 2210.13438): the `encodec` package and transformers' `EncodecModel`, at 24 kHz mono and 48 kHz stereo.

Sites: `encoder.N` and `decoder.N` (the N-th layer of the two stacks), `latent` (what the encoder gives, before the
quantiser) and `decoder_input` (what the decoder gets, behind it). The 48 kHz model works on chunks of one second, each
normalised by its own level; its sites are passed once per chunk.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hooks.errors import ModelError, one_line, require
from hooks.families.conv_sites import children_of, conv_sites
from hooks.family import Family
from hooks.model import Codec
from hooks.opening import from_pretrained
from hooks.site import Site
from hooks.timing import at_time, current_time
from hooks.weights import read_state

CHECKPOINTS = {"24khz": "encodec_24khz-d7cc33bc.th", "48khz": "encodec_48khz-7e698e3e.th"}
"""The package's own files, with the beginning of their SHA-256."""


class _Encodec(Codec):
    """What both implementations share. A model that cuts its input has `chunk_length` and `chunk_stride` in samples."""

    module: Any
    stacks: tuple[str, str]
    normalize: bool
    chunk_length: int | None
    chunk_stride: int | None

    def __init__(self, module: Any, name: str, width: int, hop_length: int, sample_rate: int, channels: int) -> None:
        self.hop_length = hop_length
        self.chunk_s = chunk_s = None if self.chunk_stride is None else self.chunk_stride / sample_rate
        rate = sample_rate / hop_length
        encoder, decoder = self.stacks
        sites = [
            *conv_sites(module, "encoder", children_of(module, encoder), sample_rate, chunk_s=chunk_s),
            Site("latent", "encoder", "BDT", width=width, frame_rate=rate, chunk_s=chunk_s),
            Site("decoder_input", "decoder", "BDT", "input", 0, width, rate, chunk_s),
            *conv_sites(module, "decoder", children_of(module, decoder), sample_rate, hop_length, chunk_s),
        ]
        super().__init__(module, sites, name=name, sample_rate=sample_rate, channels=channels)

    def encode(self, audio_BCN: Tensor) -> Tensor:
        """Latent [B, T, D].

        Raises:
            ModelError: the model normalises chunks, so that its latent alone does not hold the sound.
        """
        self._require_plain("encode")
        return self.module.encoder(audio_BCN).transpose(1, 2)

    def decode(self, z_BTD: Tensor) -> Tensor:
        self._require_plain("decode")
        return self.module.decoder(z_BTD.transpose(1, 2))

    def _require_plain(self, verb: str) -> None:
        if self.chunk_stride is not None:
            raise ModelError(f"{self.name}: every second is normalised by itself; use run or resynthesize, not {verb}")

    def _run(self, audio_BCN: Tensor) -> Tensor:
        samples = audio_BCN.shape[-1]
        round_trip = self._coded if self.quantize else self._continuous
        if self.chunk_length is None or self.chunk_stride is None:
            return round_trip(audio_BCN)[..., :samples]
        # the libraries' own loop over chunks, but with the time of each chunk known to edits
        assert self.sample_rate is not None
        start_s = current_time() or 0.0
        outputs = []
        for start in range(0, samples, self.chunk_stride):
            with at_time(start_s + start / self.sample_rate):
                outputs.append(round_trip(audio_BCN[..., start : start + self.chunk_length]))
        return self._overlap_add(outputs, self.chunk_stride)[..., :samples]

    def _continuous(self, audio_BCN: Tensor) -> Tensor:
        """A chunk past the quantiser, brought to level 1 before and back behind as the libraries do it."""
        if not self.normalize:
            return self.module.decoder(self.module.encoder(audio_BCN))
        level_B11 = audio_BCN.mean(1, keepdim=True).square().mean(2, keepdim=True).sqrt() + 1e-8
        return self.module.decoder(self.module.encoder(audio_BCN / level_B11)) * level_B11

    def _coded(self, audio_BCN: Tensor) -> Tensor:
        """A chunk through encoder, quantiser and decoder."""
        raise TypeError(f"{type(self).__name__} does not define _coded")

    def _overlap_add(self, chunks: list[Tensor], stride: int) -> Tensor:
        raise TypeError(f"{type(self).__name__} does not define _overlap_add")


class EncodecPackage(_Encodec):
    """`encodec.EncodecModel`. Set the bit rate with its own `set_target_bandwidth`."""

    stacks = ("encoder.model", "decoder.model")

    def __init__(self, module: Any, name: str = "") -> None:
        self.normalize = module.normalize
        self.chunk_length, self.chunk_stride = module.segment_length, module.segment_stride
        name = name or f"encodec:{module.sample_rate // 1000}khz"
        hop_length = math.prod(module.encoder.ratios)
        super().__init__(module, name, module.encoder.dimension, hop_length, module.sample_rate, module.channels)

    def _coded(self, audio_BCN: Tensor) -> Tensor:
        return self.module._decode_frame(self.module._encode_frame(audio_BCN))

    def _overlap_add(self, chunks: list[Tensor], stride: int) -> Tensor:
        return require("encodec.utils", "encodec")._linear_overlap_add(chunks, stride)


class EncodecTransformers(_Encodec):
    """`transformers.EncodecModel`. `bandwidth` (kbit/s) None is the lowest, as in the library."""

    stacks = ("encoder.layers", "decoder.layers")
    bandwidth: float | None = None

    def __init__(self, module: Any, name: str = "") -> None:
        config = module.config
        self.normalize = config.normalize
        self.chunk_length, self.chunk_stride = config.chunk_length, config.chunk_stride
        name = name or f"hf:encodec_{config.sampling_rate // 1000}khz"
        hop_length = math.prod(config.upsampling_ratios)
        super().__init__(module, name, config.hidden_size, hop_length, config.sampling_rate, config.audio_channels)

    def _coded(self, audio_BCN: Tensor) -> Tensor:
        bandwidths = self.module.config.target_bandwidths
        bandwidth = bandwidths[0] if self.bandwidth is None else self.bandwidth
        if bandwidth not in bandwidths:
            raise ModelError(f"{self.name}: there is no bandwidth {bandwidth}; choose one of {bandwidths}")
        return self.module._decode_frame(*self.module._encode_frame(audio_BCN, bandwidth))

    def _overlap_add(self, chunks: list[Tensor], stride: int) -> Tensor:
        return self.module._linear_overlap_add(chunks, stride)


def wrap(module: nn.Module, name: str = "") -> Codec:
    is_package = type(module).__module__.split(".")[0] == "encodec"
    return EncodecPackage(module, name) if is_package else EncodecTransformers(module, name)


def open_name(size: str, name: str) -> Codec:
    """`encodec:24khz` or `encodec:48khz` (the package's own download), or `encodec:` and the path of its `.th` file.

    Raises:
        ModelError: another size, weights that can be had neither from the cache nor from the network, or a file that
            holds another network.
    """
    encodec = require("encodec.model", "encodec")
    if Path(size).is_file():
        return open_file(Path(size), name)
    if size not in CHECKPOINTS:
        raise ModelError(f"unknown model {name!r}; there are encodec:24khz, encodec:48khz, or encodec: and a .th file")
    file = CHECKPOINTS[size]
    path = Path(torch.hub.get_dir(), "checkpoints", file)
    try:
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(encodec.ROOT_URL + file, str(path), Path(file).stem.split("-")[1])
    except (OSError, RuntimeError) as error:  # urllib's errors are OSErrors; RuntimeError: another checksum
        raise ModelError(
            f"{name}: the weights could not be downloaded ({one_line(error)}); "
            "fetch them once where there is a network, or open a folder"
        ) from error
    # the package itself would unpickle whatever is in the cache
    return open_file(path, name)


def open_file(path: Path, name: str) -> Codec:
    """A checkpoint of the package, whose first convolution tells mono (24 kHz) from stereo (48 kHz)."""
    encodec = require("encodec", "encodec")
    state = read_state(path)
    # only the 24 kHz model has weight norm
    first = state.get("encoder.model.0.conv.conv.weight_v", state.get("encoder.model.0.conv.conv.weight"))
    size = None if first is None or first.ndim != 3 else {1: "24khz", 2: "48khz"}.get(first.shape[1])
    if size is None:
        raise ModelError(f"{name}: holds no EnCodec of 24 or 48 kHz")
    module = getattr(encodec.EncodecModel, f"encodec_model_{size}")(pretrained=False)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(f"{name}: the weights are not those of EnCodec at {size} ({one_line(error)})") from error
    return EncodecPackage(module, name)


def open_folder(folder: Path, name: str) -> Codec:
    """A folder that `EncodecModel.save_pretrained` wrote, or its hub cache."""
    transformers = require("transformers", "encodec")
    return EncodecTransformers(from_pretrained(transformers.EncodecModel, folder, name), name)


FAMILY = Family(
    "encodec",
    names=("encodec:24khz", "encodec:48khz", "hf:facebook/encodec_24khz", "hf:facebook/encodec_48khz"),
    classes=("encodec.model.EncodecModel", "transformers.models.encodec.modeling_encodec.EncodecModel"),
    libraries=("encodec", "transformers"),
    wrap=wrap,
    open_name=open_name,
    open_folder=open_folder,
)
