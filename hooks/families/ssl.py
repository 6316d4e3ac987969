"""Self-supervised encoders of transformers: HuBERT, WavLM, wav2vec2 (and their CTC heads), MERT as a HuBERT at 24 kHz.

Sites, in the order in which they are passed:

- `conv`: what the convolutional front gives.
- `projected`: what the feature projection gives; behind it follow the positional convolution and, in models with post
  layer norm ("base"), a layer norm.
- `encoder.in`: what the first layer gets, which is `hidden_states[0]` of the library: behind all these.
- `encoder.N`, counted from 0: the N-th layer's own output, which is `hidden_states[N + 1]` of the library. In models
  with pre layer norm (`do_stable_layer_norm`, "large") this is the residual stream BEFORE the final norm.
- `encoder.norm`, only where there is a final norm: what it gives, which is `last_hidden_state`. In the other models
  that is the last layer's output itself.

The frame rate of all sites is the hop rate, 16000 / 320 = 50 Hz (MERT: 24000 / 320 = 75 Hz); a frame sees 400 samples
and nothing is padded, so that N samples make (N - 400) // 320 + 1 frames: 499, not 500, in 10 s.

Read edited activations with `capture`: the library's `output_hidden_states` shows a layer before or after an edit,
depending on which of the two was asked for first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from hooks.clip import as_clip
from hooks.errors import ModelError, require
from hooks.family import Family
from hooks.model import Encoder, Source
from hooks.opening import from_pretrained, origin_of, read_config
from hooks.site import Site

PREFIXES = {"hubert": "Hubert", "wavlm": "WavLM", "wav2vec2": "Wav2Vec2", "mert_model": "Hubert"}
"""What the library's classes begin with, by `model_type`.

MERT's own code is never run: it is a HuBERT, with post layer norm (95M), or with pre layer norm behind a front with
group norm (330M). Its `attention_relax` only guards a softmax in half precision and changes nothing.
"""


class SpeechEncoder(Encoder):
    """One of the library's modules, with its CTC head or without.

    `normalize` says whether `prepare` brings each sound to mean 0 and variance 1. The feature extractor saved with a
    model decides; where there is none, as beside a module that was loaded by hand from the hub, it is the library's
    default, true: set it where the model was trained otherwise.

    Rows of a batch do not see each other, so rows of EQUAL length come out as they would alone. Shorter rows need
    padding and the library's `attention_mask`: call the model itself, sites are passed there too. Behind a mask a row
    of a "large" model is as if alone; the group norm in the front of "base" models sees the padding all the same.
    """

    module: Any

    def __init__(self, module: Any, name: str = "", *, normalize: bool = True, sample_rate: int | None = None) -> None:
        config = module.config
        sample_rate = sample_rate or getattr(config, "sample_rate", 16_000)  # MERT's configuration says it
        self.normalize = normalize
        self.hop_length = math.prod(config.conv_stride)
        self.min_samples = receptive_field(config.conv_kernel, config.conv_stride)
        rate = sample_rate / self.hop_length
        width = config.hidden_size
        path = "" if module.base_model is module else f"{module.base_model_prefix}."
        sites = [
            Site("conv", f"{path}feature_extractor", "BDT", width=config.conv_dim[-1], frame_rate=rate),
            Site("projected", f"{path}feature_projection", width=width, frame_rate=rate),
            Site("encoder.in", f"{path}encoder.layers.0", port="input", width=width, frame_rate=rate),
            *(
                Site(f"encoder.{n}", f"{path}encoder.layers.{n}", width=width, frame_rate=rate)
                for n in range(config.num_hidden_layers)
            ),
        ]
        if config.do_stable_layer_norm:
            sites.append(Site("encoder.norm", f"{path}encoder.layer_norm", width=width, frame_rate=rate))
        super().__init__(module, sites, name=name, sample_rate=sample_rate)

    def prepare(self, source: Source) -> Tensor:
        """Audio [1, 1, samples], normalised over the whole sound if the model wants that."""
        assert self.sample_rate is not None
        clip = as_clip(source, self.sample_rate).resampled(self.sample_rate).mixed(1)
        x_BCN = clip.waveform[None]
        if self.normalize:
            # as the library's Wav2Vec2FeatureExtractor
            x_BCN = (x_BCN - x_BCN.mean()) / (x_BCN.var(correction=0) + 1e-7).sqrt()
        return x_BCN.to(self.device, self.dtype)

    def _run(self, audio_BCN: Tensor) -> Any:
        """The library's own output. A sound shorter than one frame (25 ms) is filled up with silence."""
        return self.module(self._filled(audio_BCN))

    def _embed(self, source: Source) -> Tensor:
        """`last_hidden_state` [T, D], also where there is a CTC head."""
        return self.module.base_model(self._filled(self.prepare(source)))[0][0]

    def _filled(self, audio_BCN: Tensor) -> Tensor:
        """[B, samples]; the last stretch of a long sound may be too short for the convolutions."""
        missing = self.min_samples - audio_BCN.shape[-1]
        return nn.functional.pad(audio_BCN[:, 0], (0, max(missing, 0)))


def receptive_field(kernels: Sequence[int], strides: Sequence[int]) -> int:
    """Samples that one frame behind a stack of convolutions sees."""
    samples = 1
    for kernel, stride in zip(reversed(kernels), reversed(strides), strict=True):
        samples = (samples - 1) * stride + kernel
    return samples


def wrap(module: Any, name: str = "") -> Encoder:
    """A module that was loaded by hand; if from a folder, the feature extractor there counts."""
    told = extractor(Path(module.name_or_path)) if module.name_or_path else {}
    return SpeechEncoder(module, name or origin_of(module), **told)


def open_folder(folder: Path, name: str) -> Encoder:
    """A folder that `save_pretrained` wrote, or a hub cache; with the CTC head if the folder has one.

    Raises:
        ModelError: weights are missing, or a MERT that is no HuBERT.
    """
    transformers = require("transformers", "ssl")
    config = read_config(folder)
    unlike = [key for key in ("feature_extractor_cqt", "deepnorm") if config.get(key)]
    if unlike:
        raise ModelError(f"{name}: a MERT with {' and '.join(unlike)} is another network than HuBERT, not supported")
    head = "ForCTC" if any(one.endswith("ForCTC") for one in config.get("architectures") or ()) else "Model"
    cls = getattr(transformers, PREFIXES[config.pop("model_type")] + head)
    # read by the library it would come with a warning of MERT's name
    own_config = cls.config_class.from_dict(config)
    # the mask is for training
    module = from_pretrained(cls, folder, name, optional=("masked_spec_embed",), config=own_config)
    return SpeechEncoder(module, name, **extractor(folder))


def extractor(folder: Path) -> dict[str, Any]:
    """What the feature extractor saved in a folder says; nothing if there is none."""
    if not any((folder / file).is_file() for file in ("preprocessor_config.json", "processor_config.json")):
        return {}
    found = require("transformers", "ssl").Wav2Vec2FeatureExtractor.from_pretrained(folder)
    return {"normalize": found.do_normalize, "sample_rate": found.sampling_rate}


FAMILY = Family(
    "ssl",
    types=tuple(PREFIXES),
    names=(
        "hf:facebook/hubert-base-ls960",
        "hf:facebook/hubert-large-ll60k",
        "hf:microsoft/wavlm-base-plus",
        "hf:microsoft/wavlm-large",
        "hf:facebook/wav2vec2-base-960h",
        "hf:m-a-p/MERT-v1-95M",
        "hf:m-a-p/MERT-v1-330M",
    ),
    classes=tuple(
        f"transformers.models.{kind}.modeling_{kind}.{PREFIXES[kind]}{head}"
        for kind in ("hubert", "wavlm", "wav2vec2")
        for head in ("Model", "ForCTC")
    ),
    libraries=("transformers",),
    wrap=wrap,
    open_folder=open_folder,
)
