"""The times of the windows that `whisper.transcribe` cuts out of a recording, told to edits."""

from __future__ import annotations

from threading import RLock
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from hooks.families.whisper.base import MEL_RATE, window
from hooks.timing import Whole

_turns: WeakKeyDictionary[nn.Module, Any] = WeakKeyDictionary()


def turn_of(module: nn.Module) -> Any:
    """Held while the package's decoder runs: its cache is filled by hooks that other threads' calls would fill too."""
    return _turns.setdefault(module, RLock())


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

    whole: Whole | None = None
    """The recording, once it is known."""

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
        wholes = None if self.whole is None else (self.whole,)
        with turn_of(self.module), window(self.start_s + start / MEL_RATE, self.start_s + stop / MEL_RATE, wholes):
            return call(mel.as_subclass(Tensor), *rest)
