"""Formats of transcripts; a module of its own, since `steer --help` shall not wait for torch."""

from __future__ import annotations

from enum import StrEnum


class Format(StrEnum):
    txt = "txt"
    srt = "srt"
    vtt = "vtt"
    json = "json"
