"""Whisper in transformers: `WhisperForConditionalGeneration`, and `WhisperModel`, which has no words. See `whisper`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hooks.attach import current_time
from hooks.errors import ModelError, require
from hooks.families.whisper.base import MEL_RATE, SAMPLE_RATE, Whisper, window
from hooks.model import Source, Transcript
from hooks.pretrained import from_pretrained


class WhisperTransformers(Whisper):
    """A module of transformers, with its `feature_extractor` and `tokenizer`.

    They are taken from where the module's weights came from, without the network; without them the extractor is the
    one that all Whispers have, and `tokenizer` (None) has to be set before `transcribe`.
    """

    layers, norm = "layers", "layer_norm"

    def __init__(self, module: Any, name: str = "") -> None:
        transformers = require("transformers", "whisper")
        config, origin = module.config, module.name_or_path
        self.feature_extractor = stored(transformers.WhisperFeatureExtractor, origin)
        if self.feature_extractor is None:
            self.feature_extractor = transformers.WhisperFeatureExtractor(feature_size=config.num_mel_bins)
        self.tokenizer = stored(transformers.WhisperTokenizer, origin)
        prefix = "model." if hasattr(module, "model") else ""
        name = name or f"hf:{origin or 'whisper'}"
        super().__init__(module, name, prefix, config.max_source_positions, config.d_model)
        self.vocabulary = config.vocab_size

    @torch.no_grad()
    def transcribe(self, source: Source, **options: Any) -> Transcript:
        """What is said, as the feature extractor and `generate` find it; `options` are those of `generate`.

        Sounds of more than 30 s go the library's own long way: window by window, from time stamp to time stamp.

        Raises:
            ModelError: a model that has no words, or no tokenizer.
        """
        if not hasattr(self.module, "proj_out"):
            raise ModelError(f"{self.name}: a WhisperModel has no words; load it as WhisperForConditionalGeneration")
        if self.tokenizer is None:
            raise ModelError(f"{self.name}: has no tokenizer; set model.tokenizer to a transformers.WhisperTokenizer")
        samples_N = self.prepare(source)[0, 0].cpu().numpy()
        is_long = len(samples_N) > self.feature_extractor.n_samples
        inputs = self.feature_extractor(
            samples_N,
            sampling_rate=SAMPLE_RATE,
            return_tensors="pt",
            return_attention_mask=True,
            **({"truncation": False, "padding": "longest"} if is_long else {}),
        )
        start_s, progress = current_time() or 0.0, options.pop("monitor_progress", None)
        end_s = start_s + len(samples_N) / SAMPLE_RATE
        with ExitStack() as stack:

            def at_window(frames_B2: Tensor) -> None:
                stack.close()
                stack.enter_context(window(start_s + int(frames_B2[0, 0]) / MEL_RATE, end_s))
                if progress is not None:
                    progress(frames_B2)

            # the language is detected on the first window, before there is any progress
            stack.enter_context(window(start_s, end_s))
            output = self.module.generate(
                **inputs.to(self.device, self.dtype),
                **{"return_segments": True} | options,
                monitor_progress=at_window,
            )
        segments = [
            segment
            | {"start": float(segment["start"]), "end": float(segment["end"])}
            | {"text": self._text(segment["tokens"]), "tokens": segment["tokens"].tolist()}
            for segment in output.get("segments", [[]])[0]
        ]
        return Transcript(self._text(output["sequences"][0]).strip(), segments, options.get("language"))

    def _text(self, tokens_L: Tensor) -> str:
        return self.tokenizer.decode(tokens_L, skip_special_tokens=True)

    def _encode(self, audio_BN: Tensor) -> Tensor:
        rows = list(audio_BN.cpu().numpy())
        mels = self.feature_extractor(rows, sampling_rate=SAMPLE_RATE, return_tensors="pt", max_length=self.window)
        encoder = self.module.get_submodule(self.encoder_path)
        return encoder(mels.input_features.to(self.device, self.dtype)).last_hidden_state

    def _decode(self, tokens_BL: Tensor, encoded_BTD: Tensor) -> Tensor:
        return self.module(encoder_outputs=(encoded_BTD,), decoder_input_ids=tokens_BL)[0]

    def _start(self, encoded_BTD: Tensor) -> Tensor:
        first = self.module.config.decoder_start_token_id
        return self._decode(torch.full((len(encoded_BTD), 1), first, device=self.device), encoded_BTD)


def stored(part: Any, origin: str) -> Any:
    """The feature extractor or tokenizer that lies with a model's weights, or None."""
    try:
        found = part.from_pretrained(origin, local_files_only=True) if origin else None
    except (OSError, ValueError):
        return None
    # where there are no files, the library makes an empty tokenizer
    return None if getattr(found, "vocab_size", None) == 0 else found


def open_folder(folder: Path, name: str) -> WhisperTransformers:
    """A folder that `save_pretrained` wrote.

    Raises:
        ModelError: weights are missing in its file.
    """
    transformers = require("transformers", "whisper")
    return WhisperTransformers(from_pretrained(transformers.WhisperForConditionalGeneration, folder, name), name)
