"""What the command `steer demo` tells the page."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from apps.page.limits import Limits


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
