"""DAC (arXiv 2306.06546) at 16, 24 and 44.1 kHz: the `dac` package (descript-audio-codec), transformers' `DacModel`.

Sites, the same in both: `encoder.N` (0: first convolution, then a block for each stride, a snake, the last
convolution), `latent` (what the encoder gives, before the quantiser), `decoder_input` (what the decoder gets, behind
it) and `decoder.N` (first convolution, blocks, snake, last convolution, tanh).

The package's `compress` and `decompress` go through sounds of more than a second window by window, with the padding of
the convolutions off and windows that overlap. They are edited as everything else, but nobody knows the time in them:
for edits with `during` use `run`.
"""

from __future__ import annotations

import inspect
import zipfile
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from hooks.errors import ModelError, one_line, require
from hooks.families.conv_sites import children_of, conv_sites
from hooks.family import Family
from hooks.model import Codec
from hooks.opening import from_pretrained, opening
from hooks.site import Site
from hooks.weights import checked, read_checkpoint

SIZES = ("16khz", "24khz", "44khz", "44khz-16kbps")


def fitted(audio_BCN: Tensor, samples: int) -> Tensor:
    """Cut to that many samples, or filled up with silence."""
    return nn.functional.pad(audio_BCN, (0, samples - audio_BCN.shape[-1]))


class _Dac(Codec):
    """What both implementations share.

    Strides of 5 (at 16 and 24 kHz) make the libraries' output 8 samples shorter than whole frames are; here these last
    samples are silence, so that what comes out is as long as what went in.

    `n_quantizers` is how many codebooks are used, for lower bit rates; None is all.
    """

    module: Any
    # what a sample of the output sees: 7904 samples on either side at 44.1 kHz, 5264 at 16 and 24 kHz
    context_s = 0.4
    n_quantizers: int | None = None

    def __init__(
        self, module: Any, name: str, width: int, hop_length: int, sample_rate: int, layers: tuple[list[str], list[str]]
    ) -> None:
        self.hop_length = hop_length
        encoder, decoder = layers
        rate = sample_rate / hop_length
        sites = [
            *conv_sites(module, "encoder", encoder, sample_rate),
            Site("latent", "encoder", "BDT", width=width, frame_rate=rate),
            Site("decoder_input", "decoder", "BDT", "input", 0, width, rate),
            *conv_sites(module, "decoder", decoder, sample_rate, hop_length),
        ]
        super().__init__(module, sites, name=name, sample_rate=sample_rate)

    def encode(self, audio_BCN: Tensor) -> Tensor:
        return self.module.encoder(self._whole(audio_BCN)).transpose(1, 2)

    def decode(self, z_BTD: Tensor) -> Tensor:
        return fitted(self.module.decoder(z_BTD.transpose(1, 2)), z_BTD.shape[1] * self.hop_length)

    def _run(self, audio_BCN: Tensor) -> Tensor:
        """The round trip.

        Raises:
            ModelError: there are not `n_quantizers` codebooks.
        """
        have = self.module.quantizer.n_codebooks
        if self.n_quantizers is not None and not 1 <= self.n_quantizers <= have:
            raise ModelError(f"{self.name}: n_quantizers is {self.n_quantizers}, and there are {have} codebooks")
        round_trip = self._coded if self.quantize else self._continuous
        return fitted(round_trip(self._whole(audio_BCN)), audio_BCN.shape[-1])

    def _whole(self, audio_BCN: Tensor) -> Tensor:
        """Filled up to whole frames, as the package's `preprocess` and transformers' feature extractor do it."""
        return nn.functional.pad(audio_BCN, (0, -audio_BCN.shape[-1] % self.hop_length))

    def _continuous(self, audio_BCN: Tensor) -> Tensor:
        """Past the quantiser."""
        return self.module.decoder(self.module.encoder(audio_BCN))

    def _coded(self, audio_BCN: Tensor) -> Tensor:
        """The library's own forward, [B, C, samples]."""
        raise TypeError(f"{type(self).__name__} does not define _coded")


class DacPackage(_Dac):
    """`dac.DAC`."""

    def __init__(self, module: Any, name: str = "") -> None:
        layers = children_of(module, "encoder.block"), children_of(module, "decoder.model")
        name = name or f"dac:{module.sample_rate // 1000}khz"
        super().__init__(module, name, module.latent_dim, int(module.hop_length), module.sample_rate, layers)

    def _coded(self, audio_BCN: Tensor) -> Tensor:
        return self.module(audio_BCN, n_quantizers=self.n_quantizers)["audio"]


class DacTransformers(_Dac):
    """`transformers.DacModel`. Its own calls do not fill up to whole frames; the feature extractor does."""

    def __init__(self, module: Any, name: str = "") -> None:
        config, blocks = module.config, range(len(module.config.downsampling_ratios))
        between = [f"block.{index}" for index in blocks]
        layers = (
            [f"encoder.{path}" for path in ("conv1", *between, "snake1", "conv2")],
            [f"decoder.{path}" for path in ("conv1", *between, "snake1", "conv2", "tanh")],
        )
        name = name or f"hf:dac_{config.sampling_rate // 1000}khz"
        super().__init__(module, name, config.hidden_size, config.hop_length, config.sampling_rate, layers)

    def _coded(self, audio_BCN: Tensor) -> Tensor:
        return self.module(audio_BCN, self.n_quantizers, return_dict=True).audio_values[:, None]


def wrap(module: nn.Module, name: str = "") -> Codec:
    is_package = type(module).__module__.split(".")[0] == "dac"
    return DacPackage(module, name) if is_package else DacTransformers(module, name)


def open_name(size: str, name: str) -> Codec:
    """`dac:44khz` and the like (the package's own download), or `dac:` and the path of a `weights.pth` or of the folder
    that the package's `save_to_folder` wrote.

    Raises:
        ModelError: another size, weights that can be had neither from the cache nor from the network, or a file that
            is no DAC.
    """
    dac = require("dac", "dac")
    path = Path(size)
    if size in SIZES:
        kind, _, bit_rate = size.partition("-")
        try:
            path = Path(dac.utils.download(model_type=kind, model_bitrate=bit_rate or "8kbps"))
        except (OSError, ValueError) as error:  # requests' errors are OSErrors; ValueError: a status other than 200
            raise ModelError(
                f"{name}: the weights could not be downloaded ({one_line(error)}); "
                "fetch them once where there is a network, or open a file as dac:/path/weights.pth"
            ) from error
    elif path.is_dir():
        found = [one for one in (path / "dac" / "weights.pth", path / "weights.pth") if one.is_file()]
        if not found:
            raise ModelError(f"{name}: there is no dac/weights.pth, which the package's save_to_folder writes")
        path = found[0]
    elif not path.is_file():
        known = ", ".join(f"dac:{one}" for one in SIZES)
        raise ModelError(f"unknown model {name!r}; there are {known}, or dac: and the path of a weights.pth")
    return open_file(path, name)


def open_file(path: Path, name: str) -> Codec:
    """A checkpoint of the package: `state_dict`, and in `metadata` what DAC was built with.

    The package's own `load` would unpickle the file and run what is in it; here it is read as tensors only.

    Raises:
        ModelError: the file is damaged, holds more than tensors, or another network.
    """
    dac = require("dac", "dac")
    if is_package(path):
        raise ModelError(
            f"{name}: is a torch.package, which brings code of its own and is not opened; "
            "open the weights.pth beside it, or write one with save(path, package=False)"
        )
    content = read_checkpoint(path)
    with opening(name, "a DAC"):
        wanted, state = content["metadata"]["kwargs"], checked(content["state_dict"], path)
        known = inspect.signature(dac.DAC).parameters
        module = dac.DAC(**{key: value for key, value in wanted.items() if key in known})
        absent = module.load_state_dict(state, strict=False).missing_keys
    if absent:
        raise ModelError(f"{name}: {len(absent)} weights are not in its file, among them {absent[0]}; fetch it again")
    return DacPackage(module, name)


def is_package(path: Path) -> bool:
    """Whether a file is what torch.package writes, as the package's own `save` does unless told otherwise."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".data/extern_modules") for name in archive.namelist())
    except (OSError, ValueError, zipfile.BadZipFile):
        return False


def open_folder(folder: Path, name: str) -> Codec:
    """A folder that `DacModel.save_pretrained` wrote, or its hub cache."""
    transformers = require("transformers", "dac")
    return DacTransformers(from_pretrained(transformers.DacModel, folder, name), name)


FAMILY = Family(
    "dac",
    names=(*(f"dac:{size}" for size in SIZES), *(f"hf:descript/dac_{size}" for size in SIZES[:3])),
    classes=("dac.model.dac.DAC", "transformers.models.dac.modeling_dac.DacModel"),
    libraries=("dac", "transformers"),
    wrap=wrap,
    open_name=open_name,
    open_folder=open_folder,
)
