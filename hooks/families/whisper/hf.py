"""Whisper in transformers: `WhisperForConditionalGeneration`, and `WhisperModel`, which has no words. See `whisper`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hooks.errors import ModelError, require
from hooks.families.whisper.base import MEL_RATE, SAMPLE_RATE, Whisper, window
from hooks.families.whisper.options import NAMED, check_decoding, check_task, compression_ratio, within
from hooks.model import Source
from hooks.opening import from_pretrained
from hooks.random_numbers import seeded
from hooks.timing import current_time, taken_whole
from hooks.transcript import Transcript

FALL_BACK = {"logprob_threshold": -1.0, "compression_ratio_threshold": 1.35}
"""Where `generate` takes the next temperature, as its documentation has it; its ratio is of tokens."""


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

    def transcribe(self, source: Source, *, seed: int | None = None, **options: Any) -> Transcript:
        """What is said, as the feature extractor and `generate` find it; `options` are those of `generate`, and
        `word_timestamps`. With a `seed` what is drawn at random is the same in each call.

        Segments have the keys of the `openai-whisper` package; what the library does not tell is None.

        Sounds of more than 30 s go the library's own long way: window by window, from time stamp to time stamp. A
        multilingual model is told the task (by default to transcribe) and the language, which is detected in the first
        window where it is not given. No time of a segment or a word lies behind the end of the sound.

        Raises:
            ModelError: a model that has no words, or no tokenizer; a language or a task that it does not have.
        """
        with nullcontext() if seed is None else seeded(seed, self.device):
            return self._transcribe(source, **options)

    @torch.no_grad()
    def _transcribe(self, source: Source, **options: Any) -> Transcript:
        if not hasattr(self.module, "proj_out"):
            raise ModelError(f"{self.name}: a WhisperModel has no words; load it as WhisperForConditionalGeneration")
        if self.tokenizer is None:
            raise ModelError(f"{self.name}: has no tokenizer; set model.tokenizer to a transformers.WhisperTokenizer")
        options = self.checked(options)
        wants_segments, words = options.pop("return_segments", True), options.pop("word_timestamps", False)
        if words:
            options |= {"return_timestamps": True, "return_token_timestamps": True}
        audio_BCN = self.prepare(source)
        wholes = (self.whole(audio_BCN),)
        seconds = audio_BCN.shape[-1] / SAMPLE_RATE
        inputs = self._features(audio_BCN)
        start_s, progress = current_time() or 0.0, options.pop("monitor_progress", None)
        end_s = start_s + seconds
        with ExitStack() as stack:

            def at_window(frames_B2: Tensor) -> None:
                stack.close()
                stack.enter_context(window(start_s + int(frames_B2[0, 0]) / MEL_RATE, end_s, wholes))
                if progress is not None:
                    progress(frames_B2)

            # the language is detected on the first window, before there is any progress
            stack.enter_context(window(start_s, end_s, wholes))
            if "language" not in options and self.is_multilingual:
                options["language"] = self._detected(inputs.input_features)
            output = self.module.generate(**inputs, **options, return_segments=True, monitor_progress=at_window)
        segments = [
            segment_of(number, segment, self._text(segment["tokens"]), options.get("temperature"))
            | ({"words": self._words(segment, options.get("language"))} if words else {})
            for number, segment in enumerate(output.get("segments", [[]])[0] if wants_segments else [])
        ]
        language = options.get("language") if self.is_multilingual or not self._is_whole else "en"
        return Transcript(self._text(output["sequences"][0]).strip(), within(segments, seconds), language)

    @torch.no_grad()
    def pass_through(self, audio_BCN: Tensor) -> None:
        """Through the encoder as `generate` passes a sound: a long one as one spectrogram, whose last window is filled
        up with zeros, a short one as `run`."""
        if audio_BCN.shape[-1] <= self.feature_extractor.n_samples:
            self.run(audio_BCN)
            return
        features_BMT = self._features(audio_BCN).input_features
        frames, start_s = self.module.config.max_source_positions * 2, current_time() or 0.0
        with taken_whole(audio_BCN, SAMPLE_RATE, self.pass_through):
            for start in range(0, features_BMT.shape[-1], frames):
                piece_BMT = features_BMT[..., start : start + frames]
                piece_BMT = nn.functional.pad(piece_BMT, (0, frames - piece_BMT.shape[-1]))
                with window(start_s + start / MEL_RATE, start_s + audio_BCN.shape[-1] / SAMPLE_RATE):
                    self.module.get_submodule(self.encoder_path)(piece_BMT)

    def _features(self, audio_BCN: Tensor) -> Any:
        """The spectrogram [B, M, T] of a sound as `generate` takes it, with its mask."""
        is_long = audio_BCN.shape[-1] > self.feature_extractor.n_samples
        return self.feature_extractor(
            audio_BCN[0, 0].cpu().numpy(),
            sampling_rate=SAMPLE_RATE,
            return_tensors="pt",
            return_attention_mask=True,
            **({"truncation": False, "padding": "longest"} if is_long else {}),
        ).to(self.device, self.dtype)

    @property
    def is_multilingual(self) -> bool:
        """Whether the model's settings say how it is told the language and the task."""
        settings = self.module.generation_config
        return bool(getattr(settings, "is_multilingual", False)) and bool(getattr(settings, "lang_to_id", None))

    @property
    def _is_whole(self) -> bool:
        """Whether the settings say if there is more than one language."""
        return hasattr(self.module.generation_config, "is_multilingual")

    def checked(self, options: dict[str, Any]) -> dict[str, Any]:
        """The same options of `generate`: the language by its code, and of a multilingual model the task too, which
        it would otherwise be left to guess.

        Raises:
            ModelError: a language or a task that the model does not have.
        """
        check_task(options.get("task"), self.name)
        if self.is_multilingual:
            return {"task": "transcribe"} | options | self.language_option(options.get("language"))
        if self._is_whole:
            # English alone, which the library refuses to be told
            self.language_option(options.get("language"))
            return {key: value for key, value in options.items() if key not in NAMED or value is None}
        return options

    def languages(self) -> tuple[dict[str, str], dict[str, str]]:
        known = require("transformers.models.whisper.tokenization_whisper", "whisper")
        settings = self.module.generation_config
        if not self.is_multilingual:
            return ({"en": "english"}, {}) if self._is_whole and not settings.is_multilingual else ({}, {})
        codes = [token.removeprefix("<|").removesuffix("|>") for token in settings.lang_to_id]
        return {code: known.LANGUAGES.get(code, code) for code in codes}, known.TO_LANGUAGE_CODE

    def decoding(
        self, temperature: Sequence[float] = (), beam_size: int | None = None, timestamps: bool = True
    ) -> dict[str, Any]:
        check_decoding(temperature, beam_size, self.name)
        found: dict[str, Any] = {}
        if temperature:
            found["temperature"] = temperature[0] if len(temperature) == 1 else tuple(temperature)
        if len(temperature) > 1:  # without limits the library never falls back
            found |= FALL_BACK
        if beam_size is not None:
            found["num_beams"] = beam_size
        return found if timestamps else found | {"return_timestamps": False}

    def timed(self, words: bool) -> dict[str, Any]:
        return {"return_timestamps": True} | ({"word_timestamps": True} if words else {})

    def _detected(self, features_BMT: Tensor) -> str:
        """The code of the language that the model finds in the first window, as `generate` would."""
        frames = self.module.config.max_source_positions * 2
        (token,) = self.module.detect_language(input_features=features_BMT, num_segment_frames=frames).tolist()
        by_token = {number: name for name, number in self.module.generation_config.lang_to_id.items()}
        return by_token[token].removeprefix("<|").removesuffix("|>")

    def _words(self, segment: dict[str, Any], language: str | None) -> list[dict[str, Any]]:
        """The words of a segment with their times in seconds of the sound."""
        combine = require("transformers.models.whisper.tokenization_whisper", "whisper")._combine_tokens_into_words
        tokens, times = segment["tokens"].tolist(), segment["token_timestamps"].tolist()
        kept = [number for number, token in enumerate(tokens) if token < self.tokenizer.eos_token_id]
        texts, _, places = combine(self.tokenizer, [tokens[number] for number in kept], language or "en")
        words = []
        for text, indices in zip(texts, places, strict=True):
            first, last = kept[indices[0]], kept[indices[-1]]
            end = times[last + 1] if last + 1 < len(times) else float(segment["end"])
            words.append({"word": text, "start": times[first], "end": max(end, times[first])})
        return words

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


def segment_of(number: int, segment: dict[str, Any], text: str, temperature: Any) -> dict[str, Any]:
    """A segment of `generate` with the keys of the `openai-whisper` package; None where transformers does not say."""
    return {
        "id": number,
        "seek": None,
        "start": float(segment["start"]),
        "end": float(segment["end"]),
        "text": text,
        "tokens": segment["tokens"].tolist(),
        "temperature": temperature if isinstance(temperature, int | float) else None,
        "avg_logprob": None,
        "compression_ratio": compression_ratio(text),
        "no_speech_prob": None,
    }


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
