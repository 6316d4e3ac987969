"""Transcripts as files, read back by rules of their formats."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.formats import Format
from apps.subtitles import clock, srt, vtt, written

SEGMENTS = [
    {"start": 0.0, "end": 1.25, "text": " Hello <you> & me\n"},
    {
        "start": 1.25,
        "end": 3661.5,
        "text": "then --> now",
        "words": [
            {"word": " then", "start": 1.25, "end": 1.5},
            {"word": " -->", "start": 1.5, "end": 2.0},
            {"word": " now", "start": 2.0, "end": 3661.5},
        ],
    },
    {"start": 3661.5, "end": 3661.5, "text": "  "},
]
RESULT = {"text": "Hello <you> & me then --> now", "language": "en", "segments": SEGMENTS}


def test_srt() -> None:
    assert written(Format.srt, RESULT) == (
        "1\n00:00:00,000 --> 00:00:01,250\nHello <you> & me\n\n2\n00:00:01,250 --> 01:01:01,500\nthen -> now\n"
    )


def test_vtt_has_the_times_of_words_where_they_are_known() -> None:
    assert written(Format.vtt, RESULT) == (
        "WEBVTT\n\n00:00:00.000 --> 00:00:01.250\nHello &lt;you&gt; &amp; me\n\n"
        "00:00:01.250 --> 01:01:01.500\nthen<00:00:01.500><c> --&gt;</c><00:00:02.000><c> now</c>\n"
    )


def test_text_and_json() -> None:
    assert written(Format.txt, RESULT) == "Hello <you> & me then --> now\n"
    assert json.loads(written(Format.json, RESULT)) == RESULT
    assert (srt([]), vtt([])) == ("", "WEBVTT\n")


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e3), st.text(max_size=30)), max_size=6))
def test_any_transcript_has_as_many_cues_as_segments_with_a_text(parts: list[tuple[float, float, str]]) -> None:
    segments: list[dict[str, Any]] = [{"start": a, "end": a + b, "text": text} for a, b, text in parts]
    result = {"text": "", "segments": segments}
    wanted = [segment for segment in segments if segment["text"].split()]
    for format, mark in ((Format.srt, ","), (Format.vtt, ".")):
        text = written(format, result)
        times = re.findall(rf"(?m)^(\d\d+:\d\d:\d\d\{mark}\d{{3}}) --> (\d\d+:\d\d:\d\d\{mark}\d{{3}})$", text)
        assert times == [(clock(one["start"], mark), clock(one["end"], mark)) for one in wanted]
        assert text.count("-->") == len(wanted)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0004, "00:00:00.000"), (59.9996, "00:01:00.000"), (-1.0, "00:00:00.000"), (360_000.001, "100:00:00.001")],
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds, ".") == text
