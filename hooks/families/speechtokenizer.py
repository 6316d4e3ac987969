"""SpeechTokenizer (arXiv 2308.16692): the `speechtokenizer` package, 16 kHz mono, 50 latent frames a second.

Sites: `encoder.N` and `decoder.N` (the N-th layer of the two stacks), `latent` (what the encoder gives, before the
quantiser), `semantic` (what the first codebook gives, which was taught what is said) and `decoder_input` (what the
decoder gets: the sum of all codebooks).

`semantic` is passed in `forward` and `forward_feature`, not in the library's `encode` and `decode`, which look its
codebook up without calling it. The codebooks behind it code what it left over, so that they undo a part of an edit
there unless `num_quantizers` is 1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from hooks.errors import ModelError, require
from hooks.families.conv_sites import children_of, conv_sites
from hooks.family import Family
from hooks.hub import download
from hooks.model import Codec
from hooks.opening import opening, read_config
from hooks.site import Site
from hooks.weights import read_state

RELEASES = {
    "hubert_avg": ("fnlp/SpeechTokenizer", "speechtokenizer_hubert_avg/SpeechTokenizer.pt"),
    "snake": ("fnlp/AnyGPT-speech-modules", "speechtokenizer/ckpt.dev"),
}
"""The published models: a hub repository and the checkpoint in it, which has its `config.json` beside it."""
NAMES = tuple(f"speechtokenizer:{release}" for release in RELEASES)


class SpeechTokenizerCodec(Codec):
    """`speechtokenizer.SpeechTokenizer`. `num_quantizers` None takes all codebooks, as in the library."""

    module: Any
    num_quantizers: int | None = None

    def __init__(self, module: Any, name: str = "") -> None:
        self.hop_length = int(module.downsample_rate)
        sample_rate, width = module.sample_rate, module.encoder.dimension
        rate = sample_rate / self.hop_length
        sites = [
            *conv_sites(module, "encoder", children_of(module, "encoder.model"), sample_rate),
            Site("latent", "encoder", "BDT", width=width, frame_rate=rate),
            Site("semantic", "quantizer.vq.layers.0", "BDT", element=0, width=width, frame_rate=rate),
            Site("decoder_input", "decoder", "BDT", "input", width=width, frame_rate=rate),
            *conv_sites(module, "decoder", children_of(module, "decoder.model"), sample_rate, self.hop_length),
        ]
        super().__init__(module, sites, name=name or "speechtokenizer", sample_rate=sample_rate)

    def encode(self, audio_BCN: Tensor) -> Tensor:
        return self.module.encoder(audio_BCN).transpose(1, 2)

    def decode(self, z_BTD: Tensor) -> Tensor:
        return self.module.decoder(z_BTD.transpose(1, 2))

    def _run(self, audio_BCN: Tensor) -> Tensor:
        if self.quantize:
            output_BCN, _, _ = self.module(audio_BCN, n_q=self.num_quantizers)
        else:
            output_BCN = self.decode(self.encode(audio_BCN))
        return output_BCN[..., : audio_BCN.shape[-1]]


def knows(folder: Path, config: dict[str, Any]) -> bool:
    """Whether a configuration is one of the package's, which name no type."""
    return {"n_q", "strides", "semantic_dimension"} <= config.keys()


def open_name(rest: str, name: str) -> Codec:
    """`speechtokenizer:hubert_avg` or `:snake` from the hub, a folder, or a checkpoint with `config.json` beside it.

    Raises:
        ModelError: there is no such model, or its files cannot be downloaded or read.
    """
    if rest in RELEASES:
        repository, checkpoint = RELEASES[rest]
        path = download(repository, only=[f"{Path(checkpoint).parent}/*"]) / checkpoint
    else:
        path = Path(rest)
    if path.is_dir():
        return open_folder(path, name)
    if path.is_file():
        return load(path.parent, path, name)
    raise ModelError(f"{name}: no such file or folder, and published models are {', '.join(NAMES)}")


def open_folder(folder: Path, name: str) -> Codec:
    """A folder with `config.json` and one file of weights."""
    return load(folder, folder, name)


def load(folder: Path, weights: Path, name: str) -> Codec:
    """Build the model and fill it with tensors; the library's own loader would unpickle anything.

    Raises:
        ModelError: one of the two cannot be read, or they do not fit each other.
    """
    package = require("speechtokenizer", "speechtokenizer")
    with opening(name, "a SpeechTokenizer"):
        module = package.SpeechTokenizer(read_config(folder))
        module.load_state_dict(read_state(weights))
    return SpeechTokenizerCodec(module, name)


FAMILY = Family(
    "speechtokenizer",
    names=NAMES,
    classes=("speechtokenizer.model.SpeechTokenizer",),
    libraries=("speechtokenizer",),
    wrap=SpeechTokenizerCodec,
    open_name=open_name,
    open_folder=open_folder,
    knows=knows,
)
