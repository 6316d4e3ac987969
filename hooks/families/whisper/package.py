"""Whisper of the `openai-whisper` package."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hooks.errors import ModelError, SoundWarning, one_line, require
from hooks.families.whisper.base import MEL_RATE, SAMPLE_RATE, Whisper, window
from hooks.families.whisper.on_time import CutOut, OnTime, turn_of
from hooks.families.whisper.options import check_decoding, check_names, check_task, spans_within, within
from hooks.families.whisper.together import transcribe_together
from hooks.model import Source
from hooks.random_numbers import seeded
from hooks.timing import current_time, taken_whole
from hooks.transcript import Transcript
from hooks.weights import check_file


@cache
def start_numba() -> None:
    """Let a thread of its own be the first that calls numba, by which the library finds the times of words.

    numba gives OpenMP all cores in that thread, and torch's operations there use them from then on, whatever number
    `torch.set_num_threads` was given.
    """
    timing = require("whisper.timing", "whisper")
    first = Thread(target=timing.dtw_cpu, args=(np.zeros((1, 1)),))
    first.start()
    first.join()


class WhisperPackage(Whisper):
    """`whisper.model.Whisper`. Threads that share one take turns, window by window."""

    layers, norm = "blocks", "ln_post"

    def __init__(self, module: Any, name: str = "") -> None:
        super().__init__(module, name or "whisper", "", module.dims.n_audio_ctx, module.dims.n_audio_state)
        self.vocabulary = module.dims.n_vocab

    def transcribe(self, source: Source, *, seed: int | None = None, **options: Any) -> Transcript:
        """What is said, as `whisper.transcribe` finds it, with all its `options`; `fp16` is off on a CPU.

        Where no temperature is given, or one above 0, a poor text is drawn at random: with a `seed` the same in each
        call.

        No time of a segment or a word lies behind the end of the sound. Of `clip_timestamps` what lies there is cut
        off.

        Raises:
            ModelError: options that the library or the model does not have.
        """
        words = options.get("word_timestamps")
        if words:
            start_numba()
        # for the times of words the package's hooks stay on the decoder between its calls
        drawn = nullcontext() if seed is None else seeded(seed, self.device)
        with drawn, turn_of(self.module) if words else nullcontext():
            return self.transcribe_by(OnTime(self.module, current_time() or 0.0), source, **options)

    def transcribe_by(self, module: OnTime, source: Source, **options: Any) -> Transcript:
        """`transcribe` with what stands in for the module."""
        whisper = require("whisper", "whisper")
        options = self.checked(options)
        audio_BCN = self.prepare(source)
        module.whole = self.whole(audio_BCN)
        audio_N = audio_BCN[0, 0].cpu().as_subclass(CutOut)
        audio_N.span = (0, len(audio_N) * MEL_RATE // SAMPLE_RATE)
        seconds = len(audio_N) / SAMPLE_RATE
        if "clip_timestamps" in options:
            asked = options["clip_timestamps"]
            options["clip_timestamps"] = spans_within(asked, seconds, self.name)
            if not options["clip_timestamps"]:  # the library would look for it without an end
                warnings.warn(f"clip_timestamps {asked} hold none of {seconds:.2f} s of sound", SoundWarning, 2)
                return Transcript("", [], options.get("language"))
        options.setdefault("fp16", self.device.type != "cpu")
        result = whisper.transcribe(module, audio_N, **options)
        return Transcript(result["text"].strip(), within(result["segments"], seconds), result["language"])

    @torch.no_grad()
    def pass_through(self, audio_BCN: Tensor) -> None:
        """Through the encoder as `whisper.transcribe` passes a sound: zeros fill up the spectrogram of its last window,
        where `run` fills up the sound."""
        whisper = require("whisper", "whisper")
        frames, start_s = whisper.audio.N_FRAMES, current_time() or 0.0
        end_s = start_s + audio_BCN.shape[-1] * MEL_RATE // SAMPLE_RATE / MEL_RATE  # as `CutOut.span`
        samples_N = audio_BCN[0, 0].cpu()
        mel_MT = whisper.log_mel_spectrogram(samples_N, self.module.dims.n_mels, padding=whisper.audio.N_SAMPLES)
        with taken_whole(audio_BCN, SAMPLE_RATE, self.pass_through):
            for start in range(0, mel_MT.shape[-1] - frames, frames):
                piece_MT = mel_MT[:, start : min(start + frames, mel_MT.shape[-1] - frames)]
                with window(start_s + start / MEL_RATE, end_s):
                    self.module.encoder(whisper.pad_or_trim(piece_MT, frames)[None].to(self.device, self.dtype))

    def checked(self, options: dict[str, Any]) -> dict[str, Any]:
        """The same options of `whisper.transcribe`, the language by its code.

        Raises:
            ModelError: an option, a language or a task that the library or the model does not have.
        """
        whisper = require("whisper", "whisper")
        known = {
            *inspect.signature(whisper.transcribe).parameters,
            *inspect.signature(whisper.DecodingOptions).parameters,
        }
        check_names(options, known - {"model", "audio", "decode_options"}, self.name)
        check_task(options.get("task"), self.name)
        return options | self.language_option(options.get("language"))

    def languages(self) -> tuple[dict[str, str], dict[str, str]]:
        tokens = require("whisper.tokenizer", "whisper")
        if not self.module.is_multilingual:
            return {"en": "english"}, {}
        names = tokens.get_tokenizer(True, num_languages=self.module.num_languages)
        return {code: tokens.LANGUAGES[code] for code in names.all_language_codes}, tokens.TO_LANGUAGE_CODE

    def timed(self, words: bool) -> dict[str, Any]:
        return {"word_timestamps": True} if words else {}

    def decoding(
        self, temperature: Sequence[float] = (), beam_size: int | None = None, timestamps: bool = True
    ) -> dict[str, Any]:
        check_decoding(temperature, beam_size, self.name)
        found: dict[str, Any] = {"temperature": tuple(temperature)} if temperature else {}
        if beam_size is not None:
            found["beam_size"] = beam_size
        return found if timestamps else found | {"without_timestamps": True}

    def transcribe_all(self, sources: Sequence[Source], seed: int | None = None, **options: Any) -> list[Transcript]:
        """What is said in each of the sounds, as `transcribe` finds it: windows are encoded as one batch and once each,
        not once a temperature, and those that are alike are decoded as one.

        All sounds are heard at once, so give as many as memory has room for. A row of a batch may round in another
        order than alone. What is drawn at random (a temperature above 0) is, without a `seed`, drawn in another order
        than one by one. With `word_timestamps` it is one by one.

        What is raised is the error of the first sound that had one, after the others have ended.
        """
        if options.get("word_timestamps") or not sources:
            return super().transcribe_all(sources, seed, **options)

        def transcribe(module: OnTime, source: Source) -> Transcript:
            return self.transcribe_by(module, source, **options)

        return transcribe_together(self.module, transcribe, sources, seed)

    def _encode(self, audio_BN: Tensor) -> Tensor:
        whisper = require("whisper", "whisper")
        # one by one: the spectrogram is limited to 80 dB under the loudest moment of all that it is made from
        mels = [whisper.log_mel_spectrogram(audio_N, self.module.dims.n_mels) for audio_N in audio_BN]
        return self.module.encoder(torch.stack(mels).to(self.dtype))

    def _decode(self, tokens_BL: Tensor, encoded_BTD: Tensor) -> Tensor:
        with turn_of(self.module):
            return self.module.decoder(tokens_BL, encoded_BTD)

    def _start(self, encoded_BTD: Tensor) -> Tensor:
        languages = {"num_languages": self.module.num_languages}
        sot = require("whisper.tokenizer", "whisper").get_tokenizer(self.module.is_multilingual, **languages).sot
        return self._decode(torch.full((len(encoded_BTD), 1), sot, device=self.device), encoded_BTD)


def is_downloaded(size: str) -> bool:
    """Whether `whisper:tiny.en` and the like open without the network: the library and its download are here."""
    cache = Path(os.getenv("XDG_CACHE_HOME") or Path.home() / ".cache")
    return find_spec("whisper") is not None and (cache / "whisper" / f"{size}.pt").is_file()


def open_name(size: str, name: str) -> WhisperPackage:
    """`whisper:tiny` (the package's own download) or `whisper:/path/model.pt`, on the CPU.

    Raises:
        ModelError: an unknown name, weights that can be had neither from the cache nor from the network, or a file that
            is no Whisper.
    """
    whisper = require("whisper", "whisper")
    path = Path(size)
    if not path.is_file() and size not in whisper.available_models():
        known = ", ".join(f"whisper:{one}" for one in whisper.available_models())
        raise ModelError(f"unknown model {name!r}; there are {known}, or whisper: and the path of a .pt file")
    try:
        if path.is_file():
            check_file(path)  # the library then unpickles tensors only
        module = whisper.load_model(size, device="cpu")
    except Exception as error:  # there is no end to what a torn download or a damaged pickle raises
        if path.is_file():
            raise ModelError(f"{name}: not a Whisper checkpoint that can be opened ({one_line(error)})") from error
        raise ModelError(
            f"{name}: the weights could not be downloaded ({one_line(error)}); fetch {size}.pt once where there is a "
            f"network, with whisper.load_model({size!r}), and open it as whisper:/path/{size}.pt"
        ) from error
    return WhisperPackage(module, name)
