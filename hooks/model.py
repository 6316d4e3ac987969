"""`AudioModel`: the user's own module plus what is needed to drive it, and its kinds."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn

from hooks.clip import Clip, Source, as_clip
from hooks.errors import ModelError, SiteError
from hooks.gradients import gradients
from hooks.random_numbers import seeded
from hooks.site import Site
from hooks.timing import taken_whole
from hooks.transcript import Transcript

CHAINED = {"to", "cpu", "cuda", "half", "float", "double", "bfloat16", "type", "eval", "train", "requires_grad_"}
"""Methods that change a module and give it back; what wraps the module gives itself back."""


if TYPE_CHECKING:

    class AnyKind:
        """What a type checker finds on a model of which it does not know the kind: the methods of all kinds, and those
        of `nn.Module` that give the model back. Everything else that is the module's own is at `module`."""

        name: str
        kind: str
        module: nn.Module
        sample_rate: int | None
        channels: int
        quantize: bool

        @property
        def device(self) -> torch.device: ...
        @property
        def dtype(self) -> torch.dtype: ...

        def site(self, name: str) -> Site: ...
        def prepare(self, source: Source) -> Tensor: ...
        def run(self, audio_BCN: Tensor, *, grad: bool = False) -> Any: ...
        def embed(self, source: Source, *, grad: bool = False) -> Tensor: ...
        def transcribe(self, source: Source, **options: Any) -> Transcript: ...
        def transcribe_all(
            self, sources: Sequence[Source], seed: int | None = None, **options: Any
        ) -> list[Transcript]: ...
        def encode(self, audio_BCN: Tensor) -> Tensor: ...
        def decode(self, z_BTD: Tensor) -> Tensor: ...
        def resynthesize(self, source: Source) -> Clip: ...

        def to(self, *args: Any, **kwargs: Any) -> Self: ...
        def cpu(self) -> Self: ...
        def cuda(self, device: int | torch.device | None = None) -> Self: ...
        def half(self) -> Self: ...
        def float(self) -> Self: ...
        def double(self) -> Self: ...
        def bfloat16(self) -> Self: ...
        def type(self, dst_type: torch.dtype | str) -> Self: ...
        def eval(self) -> Self: ...
        def train(self, mode: bool = True) -> Self: ...
        def requires_grad_(self, requires_grad: bool = True) -> Self: ...

else:
    AnyKind = object


class AudioModel(AnyKind):
    """A module in evaluation mode, its sites by name, and its sampling rate (Hz) and channels where it takes audio.

    Calling it is the module's own forward, and attributes that are not here are read and set as the module's own.
    `to`, `half`, `eval` and the like give the model back.

    A kind of models defines `_run`, and an `Encoder` `_embed`: `run` and `embed` keep gradients of them on request.
    """

    kind = "model"
    takes_float32 = False
    """Whether audio is prepared in float32 for models of any dtype: spectrograms are computed in it."""
    envoy: Any = None
    """The nnsight wrapper in which the module was handed over."""

    def __init__(
        self,
        module: nn.Module,
        sites: Iterable[Site] = (),
        *,
        name: str = "",
        sample_rate: int | None = None,
        channels: int = 1,
    ) -> None:
        self.sites = {site.name: site for site in sites}
        self.name = name or type(module).__name__
        self.sample_rate = sample_rate
        self.channels = channels
        # transformers builds models in training mode (LayerDrop, masking): activations would be random.
        # Last: from now on what is not set yet is the module's
        self.module = module.eval()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    if not TYPE_CHECKING:  # to a type checker every name would be right

        def __getattr__(self, name: str) -> Any:
            if name == "module":  # not yet set: without this, copying an AudioModel would recurse
                raise AttributeError(name)
            value = getattr(self.module, name)
            return chained(value, self) if name in CHAINED else value

    def __setattr__(self, name: str, value: Any) -> None:
        mine = "module" not in vars(self) or name in vars(self) or hasattr(type(self), name)
        if mine or not hasattr(self.module, name):
            object.__setattr__(self, name, value)
        else:
            setattr(self.module, name, value)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {len(self.sites)} sites, {self.sample_rate} Hz)"

    @property
    def device(self) -> torch.device:
        return next((p.device for p in self.module.parameters()), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        return next((p.dtype for p in self.module.parameters() if p.is_floating_point()), torch.float32)

    def site(self, name: str) -> Site:
        """The site of that name; a module path of the model is a site too.

        Raises:
            SiteError: the model has neither.
        """
        if name in self.sites:
            return self.sites[name]
        try:
            return Site.of(self.module, name)
        except SiteError:
            near = difflib.get_close_matches(name, self.sites, n=3)
            known = ", ".join(list(self.sites)[:12]) or "no named sites"
            hint = f"did you mean {', '.join(near)}?" if near else f"it has {known}"
            raise SiteError(f"{self.name} has no site {name!r}; {hint}") from None

    def prepare(self, source: Source) -> Tensor:
        """Audio as the model takes it: [1, channels, samples] at its rate, on its device, in its dtype.

        Raises:
            ModelError: the model has no sampling rate, so audio cannot be prepared for it.
            AudioFileError: the sound cannot be read.
        """
        if self.sample_rate is None:
            raise ModelError(f"{self.name}: it is not known how this model takes audio; call it with your own inputs")
        clip = as_clip(source, self.sample_rate).resampled(self.sample_rate).mixed(self.channels)
        return clip.waveform[None].to(self.device, torch.float32 if self.takes_float32 else self.dtype)

    def run(self, audio_BCN: Tensor, *, grad: bool = False) -> Any:
        """One pass over prepared audio, through every site; rows are whole recordings where nobody says a time.

        Without `grad` no gradients are kept. With it they reach the audio, edits and weights as far as the model lets
        them: not through a quantiser, nor through a spectrogram that its library computes outside torch.
        """
        # a rate of 0 is what a damaged configuration says; there is no time then
        with gradients(grad), taken_whole(audio_BCN, self.sample_rate or None, self.run):
            return self._run(audio_BCN)

    def _run(self, audio_BCN: Tensor) -> Any:
        return self.module(audio_BCN)

    def pass_through(self, audio_BCN: Tensor) -> None:
        """Pass one prepared sound through every site as the model's own way with sounds does (`transcribe`): its
        activations there are those that edits and gates meet. By default that is `run`."""
        self.run(audio_BCN)


def chained(call: Callable[..., Any], whole: Any) -> Callable[..., Any]:
    """`call`, but `whole` comes back."""

    @wraps(call)
    def called(*args: Any, **kwargs: Any) -> Any:
        call(*args, **kwargs)
        return whole

    return called


class Encoder(AudioModel):
    """A model that turns audio into an embedding for each frame."""

    kind = "encoder"

    def embed(self, source: Source, *, grad: bool = False) -> Tensor:
        """Embedding [T, D] of a whole sound: what the model's last layer gives; with gradients as in `run`."""
        with gradients(grad):
            return self._embed(source)

    def _embed(self, source: Source) -> Tensor:
        raise TypeError(f"{type(self).__name__} does not define _embed")


class Transcriber(AudioModel):
    """A model that writes down what is said."""

    kind = "transcriber"

    def transcribe(self, source: Source, *, seed: int | None = None, **options: Any) -> Transcript:
        """What is said in a sound of any length; `options` are those of the model's own library.

        With a `seed` what is drawn at random (at a temperature above 0) is the same in each call.
        """
        raise TypeError(f"{type(self).__name__} does not define transcribe")

    def language_option(self, language: str | None) -> dict[str, Any]:
        """The option of `transcribe` that tells the model a language, such as en; none where it is None, or for a model
        that knows English alone.

        Raises:
            ModelError: the model does not know it.
        """
        if language is None:
            return {}
        # transformers keeps it there, openai-whisper's module says it itself
        if getattr(getattr(self.module, "generation_config", self.module), "is_multilingual", True):
            return {"language": language}
        if language.lower() not in ("en", "english"):
            raise ModelError(f"{self.name} knows English alone; leave out the language {language}")
        return {}

    def timed(self, words: bool) -> dict[str, Any]:
        """The options of `transcribe` with which each segment has its times, and `words` the words in it too."""
        return {}

    def decoding(
        self, temperature: Sequence[float] = (), beam_size: int | None = None, timestamps: bool = True
    ) -> dict[str, Any]:
        """The options of `transcribe` by which words are found: at one temperature, or at the next one of several where
        the text of the last is poor; with so many beams; without `timestamps` as plain text.

        Raises:
            ModelError: the model does not decode like that.
        """
        if temperature or beam_size or not timestamps:
            raise ModelError(f"{self.name}: cannot be given a temperature, beams or timestamps")
        return {}

    def transcribe_all(self, sources: Sequence[Source], seed: int | None = None, **options: Any) -> list[Transcript]:
        """What is said in each of the sounds, as `transcribe` finds it; models that can hear several at once do.

        With a `seed` what is drawn at random for a sound does not depend on the others, or on what was drawn before.
        """

        def heard(source: Source) -> Transcript:
            if seed is None:
                return self.transcribe(source, **options)
            with seeded(seed, self.device):
                return self.transcribe(source, **options)

        return [heard(source) for source in sources]


class Codec(AudioModel):
    """A model that turns audio into a latent and back.

    `hop_length` samples make one latent frame. `context_s` seconds on both sides are enough for a stretch of output to
    be the same whether the recording is cut there or not (nearly so behind an LSTM). Without a quantiser
    (`has_quantizer`) `quantize` has no effect.
    """

    kind = "codec"
    hop_length: int = 1
    context_s: float = 1.0
    quantize: bool = True
    has_quantizer: bool = True
    keeps_phase: bool = True
    """Whether the round trip is near the input as a waveform, and not only by ear."""
    pitch: Callable[[Tensor], Tensor] | None = None
    """Reads the pitch in MIDI notes [B, T] off a latent [B, T, D], where the latent has it on a coordinate."""
    voicing: Callable[[Tensor], Tensor] | None = None
    """Reads the probability [B, T] that a frame has a pitch."""
    free_channels: slice | None = None
    """The coordinates of the latent beside pitch and voicing, where these have their own."""

    @property
    def frame_rate(self) -> float:
        assert self.sample_rate is not None
        return self.sample_rate / self.hop_length

    def encode(self, audio_BCN: Tensor) -> Tensor:
        """Continuous latent [B, T, D] of prepared audio."""
        raise TypeError(f"{type(self).__name__} does not define encode")

    def decode(self, z_BTD: Tensor) -> Tensor:
        """Audio [B, C, T * hop_length] of a latent."""
        raise TypeError(f"{type(self).__name__} does not define decode")

    def run(self, audio_BCN: Tensor, *, grad: bool = False) -> Tensor:
        """The round trip [B, C, samples], through the quantiser if `self.quantize`; with gradients as in `run` of any
        model."""
        return super().run(audio_BCN, grad=grad)

    def _run(self, audio_BCN: Tensor) -> Tensor:
        raise TypeError(f"{type(self).__name__} does not define _run")

    def decode_passes(self, site: str) -> bool:
        """Whether `run` is `decode` of `encode`, and `decode` passes this site: then an encoding serves many edits."""
        return False

    def resynthesize(self, source: Source) -> Clip:
        """The round trip of a whole sound, as a clip at the model's own rate."""
        audio_BCN = self.prepare(source)
        assert self.sample_rate is not None
        return Clip(self.run(audio_BCN)[0].float().cpu(), self.sample_rate)
