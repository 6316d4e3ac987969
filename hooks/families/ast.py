"""AST, the audio spectrogram transformer (arXiv 2104.01778): transformers' `ASTModel` and `ASTForAudioClassification`.

Sites, in the order in which they are passed: `embeddings` (the patches with their positions, as the first layer gets
them), `encoder.N` (what layer N gives, from 0: `hidden_states[N + 1]` of the library) and `encoder.norm` (behind the
final norm, which is `last_hidden_state`).

What stands for "frames" there are TOKENS: the class token, the distillation token, and then the patches of 16 mel bins
x 16 spectrogram frames (160 ms), which overlap, row after row: all 101 moments of the lowest 12th of the spectrum, then
those of the next. That is no order of time, so these sites have no frame rate: edits act on every token, and `during`,
curves and labels by the moment are refused. `grid` lays the patches out as [B, frequency, time, D] for whoever wants
one moment or one band.

A window is 10.24 s. `run` and `embed` go through longer sounds window by window and say when each one starts
(`at_time`). A shorter one is filled up as the model was trained with, with zeros in the spectrogram before it is
normalised; tokens of that padding are in the row with all others, and statistics over tokens contain them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hooks.errors import ModelError, require
from hooks.family import Family
from hooks.model import Encoder, Source
from hooks.opening import from_pretrained, origin_of, read_config
from hooks.site import Site
from hooks.timing import at_time, current_time, taken_whole

TRANSFORMERS = "transformers.models.audio_spectrogram_transformer.modeling_audio_spectrogram_transformer"
EXTRA_TOKENS = 2


class SpectrogramTransformer(Encoder):
    """One of the library's modules, with its `feature_extractor`.

    The one saved with a model decides on mean, deviation and window; where there is none it is the library's default,
    made for AudioSet: set it where the model was trained on something else.
    """

    module: Any
    takes_float32 = True

    def __init__(self, module: Any, name: str = "", feature_extractor: Any = None) -> None:
        # without torchaudio the library computes its spectrograms another way
        require("torchaudio.compliance.kaldi", "ast")
        config = module.config
        if feature_extractor is None:
            feature_extractor = require("transformers", "ast").ASTFeatureExtractor(
                num_mel_bins=config.num_mel_bins, max_length=config.max_length
            )
        self.feature_extractor = feature_extractor
        for key in ("num_mel_bins", "max_length"):
            ours, theirs = getattr(config, key), getattr(feature_extractor, key)
            if ours != theirs:
                raise ModelError(f"{name}: its feature extractor has {key} {theirs}, the model takes {ours}")
        rate = feature_extractor.sampling_rate
        # the spectrogram has a frame of 25 ms every 10 ms, and nothing is padded
        self.shift, self.frame = rate // 100, rate // 40
        self.window = config.max_length * self.shift
        base = module.base_model
        self.shape: tuple[int, int] = base.embeddings.get_shape(config)
        path = "" if base is module else f"{module.base_model_prefix}."
        known: dict[str, Any] = {"width": config.hidden_size, "chunk_s": self.window / rate}
        sites = [
            Site("embeddings", f"{path}embeddings", **known),
            *(Site(f"encoder.{n}", f"{path}layers.{n}", **known) for n in range(config.num_hidden_layers)),
            Site("encoder.norm", f"{path}layernorm", **known),
        ]
        super().__init__(module, sites, name=name, sample_rate=rate)

    def _run(self, audio_BCN: Tensor) -> Tensor:
        """The class logits of each window [B, windows, classes]; without a head its tokens [B, windows * T, D]."""
        outputs = self._by_window(audio_BCN, lambda values: self.module(values)[0])
        return torch.cat([output[:, None] if output.ndim == 2 else output for output in outputs], dim=1)

    def _embed(self, source: Source) -> Tensor:
        """One embedding for each window [windows, D]: the mean of its class and distillation tokens."""
        base = self.module.base_model
        audio_BCN = self.prepare(source)
        assert self.sample_rate is not None
        with taken_whole(audio_BCN, self.sample_rate, self.run):
            return torch.cat(self._by_window(audio_BCN, lambda values: base(values).pooler_output))

    def grid(self, x_BTD: Tensor) -> Tensor:
        """The patches at a site, without the two tokens, as a view [B, frequency, time, D]; 10 moments a second."""
        return x_BTD[:, EXTRA_TOKENS:].unflatten(1, self.shape)

    def _by_window(self, audio_BCN: Tensor, call: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """What `call` gives for the spectrogram [B, frames, mel bins] of each window."""
        rate, start_s, outputs = self.sample_rate, current_time() or 0.0, []
        assert rate is not None
        audio_BN = audio_BCN[:, 0].float().cpu()
        audio_BN = nn.functional.pad(audio_BN, (0, max(0, self.frame - audio_BN.shape[1])))
        # the last frame of a window reaches into the next one; what is too short for a frame of its own is left out
        reach = self.frame - self.shift
        for start in range(0, audio_BN.shape[1] - self.frame + 1, self.window):
            rows = list(audio_BN[:, start : start + self.window + reach].numpy())
            values = self.feature_extractor(rows, sampling_rate=rate, return_tensors="pt").input_values
            with at_time(start_s + start / rate):
                outputs.append(call(values.to(self.device, self.dtype)))
        return outputs


def wrap(module: Any, name: str = "") -> Encoder:
    """A module that was loaded by hand; the feature extractor beside its weights counts."""
    return SpectrogramTransformer(module, name or origin_of(module), extractor(module.name_or_path))


def open_folder(folder: Path, name: str) -> Encoder:
    """A folder that `save_pretrained` wrote, or a hub cache; with the classifier if the folder has one.

    Raises:
        ModelError: weights are missing, or the feature extractor does not fit the model.
    """
    transformers = require("transformers", "ast")
    has_head = "ASTForAudioClassification" in (read_config(folder).get("architectures") or ())
    cls = transformers.ASTForAudioClassification if has_head else transformers.ASTModel
    return SpectrogramTransformer(from_pretrained(cls, folder, name), name, extractor(str(folder)))


def extractor(origin: str) -> Any:
    """The feature extractor that lies in a folder, or with a hub model in the local cache; None if there is none."""
    part = require("transformers", "ast").ASTFeatureExtractor
    if Path(origin).is_dir():
        files = ("preprocessor_config.json", "processor_config.json")
        return part.from_pretrained(origin) if any((Path(origin) / file).is_file() for file in files) else None
    try:
        return part.from_pretrained(origin, local_files_only=True) if origin else None
    except (OSError, ValueError):
        return None


FAMILY = Family(
    "ast",
    types=("audio-spectrogram-transformer",),
    names=("hf:MIT/ast-finetuned-audioset-10-10-0.4593", "hf:MIT/ast-finetuned-speech-commands-v2"),
    classes=(f"{TRANSFORMERS}.ASTModel", f"{TRANSFORMERS}.ASTForAudioClassification"),
    libraries=("transformers",),
    wrap=wrap,
    open_folder=open_folder,
)
