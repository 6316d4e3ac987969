"""What both implementations of Whisper share: sites, windows, and one pass through encoder and decoder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from hooks.attach import attached
from hooks.errors import ModelError
from hooks.families.whisper.options import language_code
from hooks.model import Transcriber
from hooks.site import Site
from hooks.timing import Whole, at_time, current_time, frames_in, real_frames, saying, sound_until, whole_sounds

SAMPLE_RATE, MEL_RATE, FRAME_RATE = 16_000, 100, 50.0


@contextmanager
def window(start_s: float, end_s: float, wholes: tuple[Whole, ...] | None = None) -> Iterator[None]:
    """What the model gets inside starts at `start_s`, and the sound in it ends at `end_s` seconds of the file.

    `wholes` are the files; None leaves what is said of them.
    """
    with at_time(start_s), sound_until(end_s), saying(wholes=wholes) if wholes else nullcontext():
        yield


class Whisper(Transcriber):
    """What both implementations share; `layers` and `norm` are their names for the blocks and the closing norm."""

    module: Any
    takes_float32 = True
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

    def languages(self) -> tuple[dict[str, str], dict[str, str]]:
        """({code: name} of the languages that the model writes, {other name: code}); none where nothing says them."""
        return {}, {}

    def language_option(self, language: str | None) -> dict[str, Any]:
        """What tells the model the language, by its code; nothing to a model that knows English alone.

        Raises:
            ModelError: the model does not know it; the message has the codes.
        """
        codes, aliases = self.languages()
        if language is None or not codes:
            return {} if language is None else {"language": language}
        if set(codes) == {"en"} and language.lower() not in ("en", "english"):
            raise ModelError(f"{self.name} knows English alone; leave out the language {language}")
        return {"language": language_code(language, codes, self.name, aliases)}

    def frames_of(self, seconds: float) -> int:
        """How many frames of an encoder site a sound of that length fills; the rest of its last window is padding."""
        return frames_in(seconds, FRAME_RATE)

    def _run(self, audio_BCN: Tensor) -> Tensor:
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

    def whole(self, audio_BCN: Tensor) -> Whole:
        """The recording that a transcript is of, from prepared audio."""
        return whole_sounds(audio_BCN, SAMPLE_RATE, self.pass_through, current_time() or 0.0)[0]

    def logits(self, audio_BN: Tensor, tokens_BL: Tensor) -> Tensor:
        """What the decoder says after each token of a transcript of one window of sound, [B, L, V]; with gradients.

        Raises:
            ValueError: the sound is longer than a window.
        """
        rest = self.window - audio_BN.shape[-1]
        if rest < 0:
            raise ValueError(f"{audio_BN.shape[-1]} samples are more than a window of {self.window}")
        wholes = whole_sounds(audio_BN[:, None], SAMPLE_RATE, self.run)
        with window(0.0, audio_BN.shape[-1] / SAMPLE_RATE, wholes):
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
