"""Mimi (arXiv 2410.00037): transformers' `MimiModel`, 24 kHz mono, 12.5 latent frames a second.

Sites, in the order in which they are passed:

- `encoder.N`: the N-th layer of the SEANet encoder; what the last one gives, at 25 Hz, is what the encoder's
  transformer gets.
- `encoder_transformer.N`: the N-th layer of that transformer, 25 Hz.
- `latent`: what the encoder gives behind its last convolution, 12.5 Hz, before the quantiser.
- `decoder_input`: what the decoder gets, 12.5 Hz.
- `decoder_transformer.N`: the N-th layer of the decoder's transformer, 25 Hz.
- `decoder.N`: the N-th layer of the SEANet decoder.

In streaming (`encode(..., use_streaming=True)`) sites are passed once per call; edits with a time need `at_time`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from hooks.errors import ModelError, require
from hooks.families.conv_sites import children_of, conv_sites
from hooks.family import Family
from hooks.model import Codec
from hooks.opening import from_pretrained, origin_of
from hooks.site import Site

PARTS = ("encoder", "encoder_transformer", "downsample", "upsample", "decoder_transformer", "decoder")
"""The networks that a sound passes, with the quantiser between the two in the middle."""
NESTED = (
    "encoder.encoder_seanet",
    "encoder.encoder_transformer",
    "encoder.downsample",
    "decoder.upsample",
    "decoder.decoder_transformer",
    "decoder.decoder_seanet",
)
"""Where transformers has them since 5.21, in two halves; before, each lay on the model under its own name."""


class MimiCodec(Codec):
    """`transformers.MimiModel`. `num_quantizers` None takes all codebooks, as in the library.

    It sees the past only. `context_s` is how far back the attention of one layer reaches; through all layers it is
    farther, and what comes from there fades.

    Raises:
        ModelError: the model has only one of its two halves.
    """

    module: Any
    num_quantizers: int | None = None

    def __init__(self, module: Any, name: str = "") -> None:
        for half in ("encoder", "decoder"):
            if getattr(module, half) is None:
                raise ModelError(f"{name or 'this Mimi'}: has no {half}, so that no sound can pass it; open it whole")
        self.paths = dict(zip(PARTS, NESTED if hasattr(module.encoder, "encoder_seanet") else PARTS, strict=True))
        config = module.config
        width, sample_rate = config.hidden_size, config.sampling_rate
        inner_hop = math.prod(config.upsampling_ratios)
        inner_rate = sample_rate / inner_hop
        rate = inner_rate / module.get_submodule(self.paths["downsample"]).conv.stride[0]
        self.hop_length, self.context_s = round(sample_rate / rate), config.sliding_window / inner_rate

        def layers(part: str) -> Iterator[Site]:
            for index in range(config.num_hidden_layers):
                path = f"{self.paths[part]}.layers.{index}"
                yield Site(f"{part}.{index}", path, width=width, frame_rate=inner_rate)

        sites = [
            *conv_sites(module, "encoder", children_of(module, f"{self.paths['encoder']}.layers"), sample_rate),
            *layers("encoder_transformer"),
            Site("latent", self.paths["downsample"], "BDT", width=width, frame_rate=rate),
            # the first that the decoder does, in both layouts
            Site("decoder_input", self.paths["upsample"], "BDT", "input", width=width, frame_rate=rate),
            *layers("decoder_transformer"),
            *conv_sites(
                module, "decoder", children_of(module, f"{self.paths['decoder']}.layers"), sample_rate, inner_hop
            ),
        ]
        super().__init__(module, sites, name=name, sample_rate=sample_rate, channels=config.audio_channels)
        self._marks: list[tuple[Any, ...]] = []
        self._renew_codebooks()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._renew_codebooks()
        return super().__call__(*args, **kwargs)

    def encode(self, audio_BCN: Tensor) -> Tensor:
        encoder, transformer, downsample = self._parts("encoder", "encoder_transformer", "downsample")
        x_BTD = transformer(encoder(audio_BCN).transpose(1, 2))[0]
        return downsample(x_BTD.transpose(1, 2)).transpose(1, 2)

    def decode(self, z_BTD: Tensor) -> Tensor:
        upsample, transformer, decoder = self._parts("upsample", "decoder_transformer", "decoder")
        x_BTD = transformer(upsample(z_BTD.transpose(1, 2)).transpose(1, 2))[0]
        return decoder(x_BTD.transpose(1, 2))

    def _run(self, audio_BCN: Tensor) -> Tensor:
        samples = audio_BCN.shape[-1]
        if not self.quantize:
            return self.decode(self.encode(audio_BCN))[..., :samples]
        self._renew_codebooks()
        options = {"num_quantizers": self.num_quantizers, "use_streaming": False, "return_dict": True}
        codes_BKT = self.module.encode(audio_BCN, **options).audio_codes
        return self.module.decode(codes_BKT, return_dict=True).audio_values[..., :samples]

    def _parts(self, *names: str) -> list[nn.Module]:
        return [self.module.get_submodule(self.paths[name]) for name in names]

    def _renew_codebooks(self) -> None:
        """Have the centroids computed anew if what they are made of was loaded, written to, cast or moved.

        The library keeps them from their first use on, whatever happens to the module afterwards.
        """
        books = [book for book in self.module.quantizer.modules() if hasattr(book, "_embed")]
        marks = [mark(buffer) for book in books for buffer in (book.embed_sum, book.cluster_usage)]
        if marks != self._marks:
            self._marks = marks
            for book in books:
                book._embed = None


def mark(tensor: Tensor) -> tuple[Any, ...]:
    """Another one when the tensor is another or was written to (which those made in inference mode do not tell)."""
    return tensor.data_ptr(), tensor.dtype, None if tensor.is_inference() else tensor._version


def wrap(module: Any, name: str = "") -> Codec:
    return MimiCodec(module, name or origin_of(module))


def open_folder(folder: Path, name: str) -> Codec:
    """A folder that `MimiModel.save_pretrained` wrote, or its hub cache.

    Raises:
        ModelError: weights are missing or of other shapes.
    """
    transformers = require("transformers", "mimi")
    return MimiCodec(from_pretrained(transformers.MimiModel, folder, name), name)


FAMILY = Family(
    "mimi",
    names=("hf:kyutai/mimi",),
    classes=("transformers.models.mimi.modeling_mimi.MimiModel",),
    libraries=("transformers",),
    wrap=wrap,
    open_folder=open_folder,
)
