"""What both implementations of Whisper check: options before a model runs, and times that it writes afterwards."""

from __future__ import annotations

import difflib
import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hooks.errors import ModelError

NAMED = ("language", "task")
TASKS = ("transcribe", "translate")


def language_code(language: str, codes: Mapping[str, str], model: str, aliases: Mapping[str, str]) -> str:
    """The code of a language, such as en, from its code or its name; `codes` are {code: name} of those that the model
    knows, and `aliases` {other name: code}.

    Raises:
        ModelError: it is none of them; the message has all codes.
    """
    wanted = language.lower().removeprefix("<|").removesuffix("|>")
    if wanted in codes:
        return wanted
    found = {name: code for code, name in codes.items()} | {k: v for k, v in aliases.items() if v in codes}
    if wanted in found:
        return found[wanted]
    near = difflib.get_close_matches(wanted, found, n=1) or [code for code in codes if wanted[:2] == code]
    hint = f"did you mean {found.get(near[0], near[0])}? " if near else ""
    raise ModelError(f"{model}: unknown language {language!r}; {hint}it knows {', '.join(sorted(codes))}")


def check_task(task: Any, model: str) -> None:
    """Raises ModelError for another task than those that a Whisper has."""
    if task is not None and task not in TASKS:
        raise ModelError(f"{model}: unknown task {task!r}; there are {' and '.join(TASKS)}")


def check_names(options: Iterable[str], known: Iterable[str], model: str) -> None:
    """Raises ModelError for an option that the library does not have."""
    known = set(known)
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}"
            raise ModelError(f"{model}: unknown option {name!r}; {hint}")


def check_decoding(temperature: Sequence[float], beam_size: int | None, model: str) -> None:
    """Raises ModelError for temperatures below 0, beams above it, or fewer than one beam."""
    if wrong := [one for one in temperature if not (math.isfinite(one) and one >= 0)]:
        raise ModelError(f"{model}: a temperature is a number from 0, not {wrong[0]:g}")
    if beam_size is not None and beam_size < 1:
        raise ModelError(f"{model}: a beam size is a whole number from 1, not {beam_size}")
    if beam_size is not None and temperature and temperature[0] > 0:
        raise ModelError(f"{model}: beams are searched at temperature 0, not at {temperature[0]:g}")


def compression_ratio(text: str) -> float:
    """Bytes of a text over those that zlib needs for it, as `whisper` computes it: high where a text repeats itself."""
    plain = text.encode()
    return len(plain) / len(zlib.compress(plain))


def spans_within(clip_timestamps: Any, seconds: float, model: str) -> list[float]:
    """`clip_timestamps` (start, end, start, ... in seconds, as numbers or as text with commas) with what lies behind
    the end of the sound cut off; empty if all of it does.

    Raises:
        ModelError: they are no numbers, negative, or an end lies before its start.
    """
    parts: Sequence[Any] = (
        [part for part in clip_timestamps.split(",") if part.strip()]
        if isinstance(clip_timestamps, str)
        else list(clip_timestamps)
    )
    try:
        times = [float(part) for part in parts] or [0.0]
    except (TypeError, ValueError):
        times = [math.nan]
    starts, ends = times[::2], times[1::2]
    pairs = zip(starts, ends, strict=False)
    if not all(math.isfinite(time) and time >= 0 for time in times) or any(end < start for start, end in pairs):
        raise ModelError(
            f"{model}: clip_timestamps {clip_timestamps!r} are not start,end,start,end,... in seconds, each end behind "
            "its start"
        )
    ends = [*ends, seconds][: len(starts)]
    inside = [(start, min(end, seconds)) for start, end in zip(starts, ends, strict=True) if start < min(end, seconds)]
    return [time for span in inside for time in span]


def within(segments: Iterable[dict[str, Any]], seconds: float) -> list[dict[str, Any]]:
    """Segments, and the words in them, with no time behind the end of the sound."""

    def clamped(part: dict[str, Any]) -> dict[str, Any]:
        return part | {key: max(0.0, min(float(part[key]), seconds)) for key in ("start", "end")}

    return [
        clamped(segment) | ({"words": [clamped(word) for word in segment["words"]]} if "words" in segment else {})
        for segment in segments
    ]
