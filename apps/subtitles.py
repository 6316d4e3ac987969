"""Transcripts as files: plain text, JSON, and subtitles in SubRip (SRT) and WebVTT."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from apps.files import to_json
from apps.formats import Format


def written(format: Format, result: Mapping[str, Any]) -> str:
    """The content of a file for a transcript's plain values (`apps.transcripts.said`)."""
    if format == Format.json:
        return to_json(dict(result)) + "\n"
    if format == Format.txt:
        return f"{result['text']}\n"
    segments = [segment for segment in result["segments"] if text_of(segment)]
    return srt(segments) if format == Format.srt else vtt(segments)


def srt(segments: Iterable[Mapping[str, Any]]) -> str:
    """A numbered cue a segment. An arrow in a text would end it for some players, and is written otherwise."""
    cues = []
    for number, segment in enumerate(segments, 1):
        times = " --> ".join(clock(segment[key], ",") for key in ("start", "end"))
        cues.append(f"{number}\n{times}\n{text_of(segment).replace('-->', '->')}\n")
    return "\n".join(cues)


def vtt(segments: Sequence[Mapping[str, Any]]) -> str:
    """A cue a segment; where words have times, each word has its own in the cue."""
    cues = ["WEBVTT\n"]
    for segment in segments:
        times = " --> ".join(clock(segment[key], ".") for key in ("start", "end"))
        words = [word for word in segment.get("words", ()) if str(word["word"]).strip()]
        text = html.escape(text_of(segment), quote=False)
        if words:
            first, *rest = words
            timed = [f"<{clock(word['start'], '.')}><c>{html.escape(word['word'], quote=False)}</c>" for word in rest]
            text = html.escape(first["word"].strip(), quote=False) + "".join(timed)
        cues.append(f"{times}\n{text}\n")
    return "\n".join(cues)


def text_of(segment: Mapping[str, Any]) -> str:
    """In one line: an empty one would end the cue."""
    return " ".join(str(segment["text"]).split())


def clock(seconds: float, mark: str) -> str:
    """HH:MM:SS and milliseconds behind `mark`."""
    milliseconds = max(0, round(1000 * float(seconds)))
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}:{rest // 1000:02}{mark}{rest % 1000:03}"
