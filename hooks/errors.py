"""What can go wrong for a user, each with one line that says what, where and what to do."""

from __future__ import annotations

import importlib
from types import ModuleType


class AudioSteerError(Exception):
    """Base of every error that AudioSteer raises on purpose."""


class AudioFileError(AudioSteerError):
    """A sound file that cannot be read or written, or whose samples cannot be used."""


class SoundWarning(UserWarning):
    """Something about a sound that its user should know, where it can be used all the same."""


class SiteError(AudioSteerError):
    """An unknown site, or one that does not behave as it was declared."""


class ModelError(AudioSteerError):
    """A model that cannot be found, opened or wrapped."""


class MissingExtraError(ModelError, ImportError):
    """A library that belongs to an optional part of AudioSteer is not installed."""


def require(module: str, extra: str) -> ModuleType:
    """Import an optional library when it is first needed.

    Raises:
        MissingExtraError: it is not there (the message names the pip command) or does not load on this machine.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"{module} is not installed: pip install 'audiosteer[{extra}]'") from error
    except (ImportError, OSError, RuntimeError) as error:  # a torchaudio of another CUDA build, for one
        raise MissingExtraError(
            f"{module} is installed but does not load ({one_line(error)}); reinstall 'audiosteer[{extra}]'"
        ) from error


def one_line(error: BaseException, limit: int = 200) -> str:
    """What another library's error says, without its line breaks and its tail."""
    return shortened(str(error), limit) or type(error).__name__


def shortened(text: str, limit: int = 500) -> str:
    """A text in one line, without its tail: what a file says may stand in a message, however much that is."""
    text = " ".join(text.split())
    return text if len(text) <= limit else f"{text[:limit].rstrip()} ..."
