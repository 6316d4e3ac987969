"""What a recogniser writes down."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class Transcript(str):
    """What was said. `segments` are its parts as dicts with `start` and `end` (seconds), `text`, `tokens` and whatever
    else the model's library tells; `language` is its code where the library tells it.
    """

    segments: list[dict[str, Any]]
    language: str | None

    def __new__(cls, text: str, segments: Iterable[dict[str, Any]] = (), language: str | None = None) -> Transcript:
        transcript = super().__new__(cls, text)
        transcript.segments, transcript.language = list(segments), language
        return transcript
