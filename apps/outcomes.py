"""The outcome of an edit in words: amounts with units, what was kept, which goals were missed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from steer.calibrate import error_of
from steer.editing.outcome import Outcome
from steer.editing.voice_measure import Heard
from steer.goals import GOALS

UNEQUAL = {"loudness": 0.1, "brightness": 1.0}
"""Channels are listed where their changes differ by more than this (dB, %)."""
UNMOVED = 0.25
"""The share of the energy that a pitch edit left where it was from which it is said; of speech it is a few per cent."""
STOI, ABOVE_BAND = "STOI against the input", "energy above the codec's band"


def shown(name: str, value: float | None) -> str:
    """A change with its unit."""
    if value is None:
        return "–"
    goal = GOALS[name]
    digits = 1 if goal.relative else 2
    return f"{round(value, digits) + 0.0:+.{digits}f} {goal.unit}"  # no "-0.00"


def drift(name: str, value: float | None) -> str:
    """As `shown`, but pitch in cents."""
    return f"{100 * value:+.0f} cents" if name == "pitch" and value is not None else shown(name, value)


def met(name: str, goal: float, measured: float | None) -> bool:
    return error_of(name, goal, measured) <= 1.0


def verdict(outcome: Outcome) -> str:
    words = [("unchanged" if outcome.unchanged else "done") if outcome.met else "goal not reached"]
    if outcome.clipped:
        words.append(f"{outcome.clipped} samples clipped")
    return ", ".join(words)


def kept_lines(outcome: Outcome, spans: str = "--during") -> list[str]:
    """A line for each thing beside the goals that changed or stayed; `spans` is what the edited spans are called."""
    lines = voice_lines(outcome.voice)
    if (stoi := outcome.kept.get("stoi")) is not None:
        lines.append(f"{STOI}: {stoi:.3f}")
    if (above_db := outcome.kept.get("above_band_db")) is not None:
        lines.append(f"{ABOVE_BAND}: {shown('loudness', above_db)}")
    if outcome.kept.get("outside_unchanged"):
        lines.append(f"outside {spans}: unchanged")
    if (unmoved := outcome.kept.get("unmoved") or 0.0) >= UNMOVED:
        lines.append(f"no single pitch, not moved: {100 * unmoved:.0f} % of the sound's energy (noise, chords)")
    if outcome.limited_db:
        lines.append(f"limiter: peaks turned down by {outcome.limited_db:.2f} dB at most{no_headroom(outcome)}")
    if outcome.clipped:
        lines.append(f"clipped at full scale: {outcome.clipped} samples")
    return [*lines, *channel_lines(outcome.channels), *outcome.notes]


def no_headroom(outcome: Outcome) -> str:
    """Why a goal of loudness was missed, where the limiter is the reason."""
    goal, measured = outcome.requested.get("loudness"), outcome.measured.get("loudness")
    if goal is None or measured is None or measured > goal or met("loudness", goal, measured):
        return ""
    return f"; the file has no headroom for {shown('loudness', goal)}"


def voice_lines(voice: Mapping[str, Heard]) -> list[str]:
    """What was asked of the voice and what was measured, a line each."""
    lines = []
    for name, heard in voice.items():
        values = {key: heard.get(key) for key in ("measured", "before")}
        measured, before = ("–" if value is None else f"{value:.4g}" for value in values.values())
        told = f" (before {before}, after {heard['after']:.4g})" if values["before"] is not None else ""
        lines.append(f"{name.replace('_', ' ')} {heard['asked']}: {measured} {heard['unit']}{told}")
    return lines


def channel_lines(channels: Sequence[Mapping[str, float | None]]) -> list[str]:
    """The changes of each channel, where they differ."""
    names = [
        name
        for name, least in UNEQUAL.items()
        if (values := [value for one in channels if (value := one.get(name)) is not None])
        and max(values) - min(values) > least
    ]
    return [
        f"channel {number}: " + ", ".join(f"{name} {shown(name, one.get(name))}" for name in names)
        for number, one in enumerate(channels if names else (), start=1)
    ]


def shortfalls(outcome: Outcome) -> list[str]:
    """A line for each goal that was not reached: what was asked for, and how far it got."""
    lines = []
    for name, goal in outcome.requested.items():
        reached = outcome.measured[name]
        if not met(name, goal, reached):
            got = "it could not be measured there" if reached is None else f"it got to {shown(name, reached)}"
            lines.append(f"{outcome.source}: {name} {shown(name, goal)} was not reached; {got}")
    return lines
