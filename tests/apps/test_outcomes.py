"""The outcome of an edit in words and tables."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from apps.batch.jobs import Row
from apps.outcomes import channel_lines, drift, kept_lines, shortfalls, shown, verdict
from apps.tables import batch_table, outcome_table, show_outcome
from steer.editing.outcome import Outcome

MEASURED = {"loudness": 6.1, "pitch": 0.012, "brightness": None}


def outcome(**values: Any) -> Outcome:
    fields = {"requested": {"loudness": 6.0}, "measured": MEASURED, "measured_s": 2.0, "met": True, "seconds": 2.0}
    return Outcome("in.wav", "out.wav", **{**fields, **values})


def printed(thing: Any) -> str:
    console = Console(record=True, width=160, file=io.StringIO())
    if isinstance(thing, Outcome):
        show_outcome(thing, console)
    else:
        console.print(thing)
    return console.export_text()


def test_amounts() -> None:
    assert shown("loudness", -0.001) == "+0.00 dB" and shown("pitch", 2) == "+2.00 st"
    assert shown("brightness", -0.04) == "+0.0 %" and shown("brightness", None) == "–"
    assert drift("pitch", -0.05) == "-5 cents" and drift("loudness", 1.0) == "+1.00 dB" and drift("pitch", None) == "–"


def test_done_is_said_only_of_what_is_met() -> None:
    assert verdict(outcome()) == "done"
    assert verdict(outcome(met=False)) == "goal not reached"
    assert verdict(outcome(met=False, unchanged=True)) == "goal not reached"
    assert verdict(outcome(unchanged=True, clipped=3)) == "unchanged, 3 samples clipped"


def test_what_else_changed_has_a_line_each() -> None:
    kept = {"stoi": 0.91234, "above_band_db": -0.001, "outside_unchanged": True}
    assert kept_lines(outcome(kept=kept, limited_db=1.234, clipped=2), "the stretch") == [
        "STOI against the input: 0.912",
        "energy above the codec's band: +0.00 dB",
        "outside the stretch: unchanged",
        "limiter: peaks turned down by 1.23 dB at most",
        "clipped at full scale: 2 samples",
    ]
    assert kept_lines(outcome()) == []
    assert kept_lines(outcome(kept={"stoi": None, "above_band_db": None, "outside_unchanged": False})) == []


def test_what_a_pitch_edit_could_not_move_is_said_where_it_is_much() -> None:
    (line,) = kept_lines(outcome(kept={"unmoved": 0.412}))
    assert line == "no single pitch, not moved: 41 % of the sound's energy (noise, chords)"
    assert not kept_lines(outcome(kept={"unmoved": 0.1})) and not kept_lines(outcome(kept={"unmoved": None}))


def test_a_file_without_headroom() -> None:
    quieter = outcome(measured={**MEASURED, "loudness": 3.4}, met=False, limited_db=5.0)
    (line,) = kept_lines(quieter)
    assert line == "limiter: peaks turned down by 5.00 dB at most; the file has no headroom for +6.00 dB"
    # louder than asked for: not by the limiter
    assert kept_lines(outcome(measured={**MEASURED, "loudness": 8.0}, met=False, limited_db=5.0)) == [
        "limiter: peaks turned down by 5.00 dB at most"
    ]


@pytest.mark.parametrize(
    ("channels", "lines"),
    [
        ([], []),
        ([{"loudness": 6.0, "pitch": None, "brightness": 1.0}, {"loudness": 6.09, "brightness": 1.9}], []),
        (
            [{"loudness": 6.0, "brightness": 1.0}, {"loudness": 6.2, "brightness": 1.5}],
            ["channel 1: loudness +6.00 dB", "channel 2: loudness +6.20 dB"],
        ),
        (
            [{"loudness": 6.0, "brightness": 1.0}, {"loudness": 7.0, "brightness": 3.0}],
            ["channel 1: loudness +6.00 dB, brightness +1.0 %", "channel 2: loudness +7.00 dB, brightness +3.0 %"],
        ),
        ([{"loudness": None, "brightness": None}, {"loudness": 6.2, "brightness": None}], []),
    ],
)
def test_channels_are_listed_where_they_differ(channels: Any, lines: list[str]) -> None:
    assert channel_lines(channels) == lines


def test_shortfalls() -> None:
    requested = {"loudness": 6.0, "pitch": 2.0, "brightness": 10.0}
    assert shortfalls(outcome(requested=requested, met=False)) == [
        "in.wav: pitch +2.00 st was not reached; it got to +0.01 st",
        "in.wav: brightness +10.0 % was not reached; it could not be measured there",
    ]


def test_one_file_as_a_table() -> None:
    text = printed(outcome(round_trip={"loudness": 5.5, "pitch": None, "brightness": 2.0}, kept={"stoi": 0.5}))
    assert all(word in text for word in ("requested", "measured", "round trip", "+6.00 dB", "+6.10 dB", "+5.50 dB"))
    assert "pitch (drift)" in text and "+1 cents" in text and "STOI against the input: 0.500" in text
    text = printed(outcome(measured_s=24.0, seconds=300.0))
    assert "measured in 24 of 300 s" in text and "round trip" not in text
    assert len(outcome_table(outcome()).columns) == 3


def test_a_batch_as_a_table() -> None:
    older = {k: v for k, v in outcome().to_dict().items() if k not in ("round_trip", "channels", "limited_db", "kept")}
    rows = [Row("a", "a.wav", result=older), Row("b", "b.wav", "b.wav: [bold]")]
    assert [str(column.header) for column in batch_table(rows).columns] == [
        "file", "loudness", "pitch", "brightness", "result",
    ]  # fmt: skip
    text = printed(batch_table(rows))
    assert "+6.00 dB → +6.10 dB" in text and "b.wav: [bold]" in text and "done" in text
    newer = outcome(round_trip={"loudness": 5.5, "pitch": None, "brightness": 2.0}, limited_db=1.0, met=False)
    text = printed(batch_table([*rows, Row("c", "c.wav", result=newer.to_dict())]))
    assert all(word in text for word in ("round trip", "+5.50 dB", "what else", "limiter", "goal not reached"))
