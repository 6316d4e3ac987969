"""What the page takes and refuses, and how it is set up; what it refuses, it refuses with a sentence."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hooks import AudioFileError
from hooks.clip import AudioInfo, audio_info, read_blocks
from hooks.errors import AudioSteerError

BLOCK_FRAMES = 1 << 16


class PageError(AudioSteerError):
    """The page cannot be opened: a port that is taken, a host that is not here, a network that cannot be reached."""


@dataclass(frozen=True)
class Limits:
    """How large (MB, 10^6 bytes), how long (minutes), how fast (Hz) and how wide (channels) a sound may be."""

    max_mb: float = 50.0
    max_minutes: float = 10.0
    max_rate_hz: int = 384_000
    max_channels: int = 8

    @property
    def max_bytes(self) -> int:
        return round(self.max_mb * 1e6)


def checked(path: str | Path, limits: Limits) -> AudioInfo:
    """What a sound says of itself, once all of it was read and nothing is wrong with it.

    Raises:
        AudioFileError: the file is missing, empty, no sound, damaged, too large, too long or too wide, or has samples
            that are not finite. The message names the file by its own name, never by its folder.
    """
    path = Path(path)
    try:
        return _checked(path, limits)
    except AudioFileError as error:
        raise AudioFileError(str(error).replace(str(path), path.name)) from None


def _checked(path: Path, limits: Limits) -> AudioInfo:
    size = path.stat().st_size if path.is_file() else None
    if size == 0:
        raise AudioFileError(f"{path}: is empty (0 bytes)")
    if size is not None and size > limits.max_bytes:
        raise AudioFileError(f"{path}: {size / 1e6:.1f} MB, at most {limits.max_mb:g} MB are taken here")
    info = audio_info(path)
    if info.seconds > limits.max_minutes * 60:
        raise AudioFileError(
            f"{path}: lasts {info.seconds / 60:.1f} minutes, at most {limits.max_minutes:g} minutes are taken here"
        )
    if info.sample_rate > limits.max_rate_hz:
        raise AudioFileError(
            f"{path}: sampling rate {info.sample_rate} Hz, at most {limits.max_rate_hz} Hz are taken here"
        )
    if info.channels > limits.max_channels:
        raise AudioFileError(f"{path}: {info.channels} channels, at most {limits.max_channels} are taken here")
    for _ in read_blocks(info, BLOCK_FRAMES):
        pass
    return info


@dataclass(frozen=True)
class Settings:
    """How the page is set up.

    `queue` is how many runs may wait; `models` are names that are offered besides the starters; `atlas` is a file of
    `steer features`, and `audio` the folder with the clips that it names; `folder` holds uploads and results while the
    server is up. A `private` page is for those at this machine: there any model may be named. Models run on `device`.
    """

    limits: Limits = field(default_factory=Limits)
    queue: int = 10
    models: tuple[str, ...] = ()
    audio: Path | None = None
    atlas: Path | None = None
    folder: Path | None = None
    private: bool = False
    device: str = "cpu"
