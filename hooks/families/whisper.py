"""Whisper (arXiv 2212.04356): the `openai-whisper` package and transformers' Whisper, under the same site names.

Encoder sites have 50 frames a second:

- `encoder.conv`: what the convolutional front gives, positions added, as the first block gets it;
- `encoder.N`: what block N (from 0) gives, BEFORE the norm that closes the encoder;
- `encoder.norm`: behind that norm, which is what the decoder reads.

In transformers' `hidden_states` these are [0], [N + 1] and [-1]; what the last block gives is not among them, since the
library shows the last one behind the norm. `decoder.N` is what block N of the decoder gives: the prompt in one call,
then a frame a token. A token has no time, so edits there take no `during`.

Whisper hears windows of 30 s, and the rest of the last one is padding. `run` and `transcribe` say where in the file a
window starts (`at_time`) and where the sound ends (`sound_until`), so `during` is in seconds of the file, however long
it is, and `real_frames` tells sound from padding. Calls of the libraries (`decode`, `generate`, a pipeline) are edited
as well, but nobody knows the time in them: say it with `at_time`.

What the padding is differs, and blocks attend to it: `run` (in both) and transformers' short way fill up with silence,
`whisper.transcribe` and transformers' long way with zeros in the spectrogram, whose floor is set by the whole file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from threading import RLock
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from hooks.attach import at_time, attached, current_time
from hooks.clip import as_clip
from hooks.errors import ModelError, one_line, require
from hooks.model import Source, Transcriber, Transcript
from hooks.padding import frames_in, real_frames, sound_until
from hooks.site import Site
from hooks.weights import check_file

TRANSFORMERS = "transformers.models.whisper.modeling_whisper"
CLASSES = (
    "whisper.model.Whisper",
    f"{TRANSFORMERS}.WhisperForConditionalGeneration",
    f"{TRANSFORMERS}.WhisperModel",
)
NAMES = (
    *(f"whisper:{size}" for size in ("tiny", "base", "small", "medium", "large-v3", "turbo")),
    *(f"hf:openai/whisper-{size}" for size in ("tiny", "base", "small", "medium", "large-v3", "large-v3-turbo")),
)
SAMPLE_RATE, MEL_RATE, FRAME_RATE = 16_000, 100, 50.0


@contextmanager
def window(start_s: float, end_s: float) -> Iterator[None]:
    """What the model gets inside starts at `start_s`, and the sound in it ends at `end_s` seconds of the file."""
    with at_time(start_s), sound_until(end_s):
        yield


class Whisper(Transcriber):
    """What both implementations share; `layers` and `norm` are their names for the blocks and the closing norm."""

    module: Any
    layers: str
    norm: str
    vocabulary: int
    """How many tokens there are."""

    def __init__(self, module: nn.Module, name: str, prefix: str, positions: int, width: int) -> None:
        self.window = round(positions / FRAME_RATE * SAMPLE_RATE)
        self.encoder_path, self.decoder_path = f"{prefix}encoder", f"{prefix}decoder"
        blocks, text_blocks = (f"{path}.{self.layers}" for path in (self.encoder_path, self.decoder_path))
        heard: dict[str, Any] = {"width": width, "frame_rate": FRAME_RATE, "chunk_s": self.window / SAMPLE_RATE}
        sites = [
            Site("encoder.conv", f"{blocks}.0", port="input", **heard),
            *(
                Site(f"encoder.{i}", f"{blocks}.{i}", **heard)
                for i, _ in enumerate(module.get_submodule(blocks).children())
            ),
            Site("encoder.norm", f"{self.encoder_path}.{self.norm}", **heard),
            *(
                Site(f"decoder.{i}", f"{text_blocks}.{i}", width=width)
                for i, _ in enumerate(module.get_submodule(text_blocks).children())
            ),
        ]
        super().__init__(module, sites, name=name, sample_rate=SAMPLE_RATE)

    def prepare(self, source: Source) -> Tensor:
        """Audio [1, 1, samples] at 16 kHz, in float32 for models of any dtype: so are their spectrograms."""
        return as_clip(source, SAMPLE_RATE).resampled(SAMPLE_RATE).mixed(1).waveform[None].to(self.device)

    def frames_of(self, seconds: float) -> int:
        """How many frames of an encoder site a sound of that length fills; the rest of its last window is padding."""
        return frames_in(seconds, FRAME_RATE)

    @torch.no_grad()
    def run(self, audio_BCN: Tensor) -> Tensor:
        """Through the encoder, window by window: what the decoder reads [B, T, D], without the padding.

        Only where this context has attached something to the decoder, that is run too, on the token that starts every
        transcript; then it gives the logits [B, windows, V]. For activations along a transcript call `transcribe` in a
        `Recorder`.
        """
        start_s = current_time() or 0.0
        end_s = start_s + audio_BCN.shape[-1] / SAMPLE_RATE
        outputs = []
        for start in range(0, audio_BCN.shape[-1], self.window):
            piece_BN = audio_BCN[:, 0, start : start + self.window].float()
            padded_BN = nn.functional.pad(piece_BN, (0, self.window - piece_BN.shape[-1]))
            with window(start_s + start / SAMPLE_RATE, end_s):
                encoded_BTD = self._encode(padded_BN)
                if attached(self.module.get_submodule(self.decoder_path)):
                    outputs.append(self._start(encoded_BTD))
                else:
                    outputs.append(encoded_BTD[:, : real_frames(encoded_BTD.shape[1], FRAME_RATE)])
        return torch.cat(outputs, dim=1)

    def logits(self, audio_BN: Tensor, tokens_BL: Tensor) -> Tensor:
        """What the decoder says after each token of a transcript of one window of sound, [B, L, V]; with gradients.

        Raises:
            ValueError: the sound is longer than a window.
        """
        rest = self.window - audio_BN.shape[-1]
        if rest < 0:
            raise ValueError(f"{audio_BN.shape[-1]} samples are more than a window of {self.window}")
        with window(0.0, audio_BN.shape[-1] / SAMPLE_RATE):
            return self._decode(tokens_BL, self._encode(nn.functional.pad(audio_BN.float(), (0, rest))))

    def _encode(self, audio_BN: Tensor) -> Tensor:
        """What the encoder gives [B, T, D] for one window."""
        raise TypeError(f"{type(self).__name__} does not define _encode")

    def _decode(self, tokens_BL: Tensor, encoded_BTD: Tensor) -> Tensor:
        """Logits [B, L, V] after each token."""
        raise TypeError(f"{type(self).__name__} does not define _decode")

    def _start(self, encoded_BTD: Tensor) -> Tensor:
        """Logits [B, 1, V] after the token that starts every transcript."""
        raise TypeError(f"{type(self).__name__} does not define _start")


_turns: WeakKeyDictionary[nn.Module, Any] = WeakKeyDictionary()


def turn_of(module: nn.Module) -> Any:
    """Held while the package's decoder runs: its cache is filled by hooks that other threads' calls would fill too."""
    return _turns.setdefault(module, RLock())


class WhisperPackage(Whisper):
    """`whisper.model.Whisper`. Threads that share one take turns, window by window."""

    layers, norm = "blocks", "ln_post"

    def __init__(self, module: Any, name: str = "") -> None:
        super().__init__(module, name or "whisper", "", module.dims.n_audio_ctx, module.dims.n_audio_state)
        self.vocabulary = module.dims.n_vocab

    def transcribe(self, source: Source, **options: Any) -> Transcript:
        """What is said, as `whisper.transcribe` finds it, with all its `options`; `fp16` is off on a CPU."""
        # for the times of words the package's hooks stay on the decoder between its calls
        with turn_of(self.module) if options.get("word_timestamps") else nullcontext():
            return self.transcribe_by(OnTime(self.module, current_time() or 0.0), source, **options)

    def transcribe_by(self, module: OnTime, source: Source, **options: Any) -> Transcript:
        """`transcribe` with what stands in for the module."""
        whisper = require("whisper", "whisper")
        audio_N = self.prepare(source)[0, 0].cpu().as_subclass(CutOut)
        audio_N.span = (0, len(audio_N) * MEL_RATE // SAMPLE_RATE)
        options.setdefault("fp16", self.device.type != "cpu")
        result = whisper.transcribe(module, audio_N, **options)
        return Transcript(result["text"].strip(), result["segments"], result["language"])

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
        from hooks.families.whisper_together import transcribe_together

        return transcribe_together(self, sources, options, seed)

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


class CutOut(Tensor):
    """A spectrogram that knows which of the recording's frames it holds: `span`, counted at `MEL_RATE`, no padding.

    `whisper.transcribe` cuts its windows out of one spectrogram and tells nobody where; this notes every cut.
    """

    span: tuple[int, int]

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_function__(func, types, args, kwargs)
        source = next((value for value in args if isinstance(value, cls)), None)
        if isinstance(result, cls) and source is not None:
            start, stop = source.span
            if func == Tensor.__getitem__ and isinstance(args[1], tuple) and isinstance(args[1][-1], slice):
                first, last, _ = args[1][-1].indices(source.shape[-1])
                start, stop = start + first, min(stop, start + last)
            result.span = (start, stop)
        return result


class OnTime:
    """Stands in for the module inside `whisper.transcribe`: says when the window that it is given is."""

    def __init__(self, module: Any, start_s: float) -> None:
        self.module, self.start_s = module, start_s

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)

    def __call__(self, mel: CutOut, tokens: Tensor) -> Tensor:
        return self._timed(self.module, mel, tokens)

    def decode(self, mel: CutOut, options: Any) -> Any:
        return self._timed(self.module.decode, mel, options)

    def detect_language(self, mel: CutOut) -> Any:
        return self._timed(self.module.detect_language, mel)

    def _timed(self, call: Any, mel: CutOut, *rest: Any) -> Any:
        start, stop = mel.span
        with turn_of(self.module), window(self.start_s + start / MEL_RATE, self.start_s + stop / MEL_RATE):
            return call(mel.as_subclass(Tensor), *rest)


def wrap(module: nn.Module, name: str = "") -> Whisper:
    if hasattr(module, "dims"):
        return WhisperPackage(module, name)
    from hooks.families import whisper_hf

    return whisper_hf.WhisperTransformers(module, name)


def open_name(size: str, name: str) -> Whisper:
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


def open_folder(folder: Path, name: str) -> Whisper:
    """A folder that transformers' `save_pretrained` wrote, or its hub cache."""
    from hooks.families import whisper_hf

    return whisper_hf.open_folder(folder, name)
