"""One edit as the page shows it: the sound before, its round trip and after, what was measured, how to redo it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apps.outcomes import kept_lines
from apps.page.lines import python_lines
from hooks.clip import AudioInfo, audio_info, create_audio, read_blocks
from hooks.sound_files import FORMATS, kind_of
from hooks.tags import read_tags
from steer.acoustics import decibels
from steer.editing.editor import BLOCK_S, Editor, Outcome, Report
from steer.goals import GOALS
from steer.values import Span

MISSING = "not measured"
SILENT_DB = -100.0
PLAYED_BY_BROWSERS = (".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus")


@dataclass(frozen=True)
class Edited:
    """Files of the sound before, after the codec alone, and after the edit; the recipe and the Python that redo it."""

    outcome: Outcome
    before: Path
    round_trip: Path
    after: Path
    recipe: Path
    lines: str
    during: list[Span] | None

    @property
    def sounds(self) -> list[Path]:
        return [self.before, self.round_trip, self.after]


def edit_for_page(editor: Editor, source: Path, folder: Path, report: Report) -> Edited:
    """Edit a sound; all files are written to `folder`.

    Raises:
        AudioSteerError: as `Editor.edit_file`, and what `report` raises.
    """
    info = audio_info(source)
    ending = source.suffix.lower() if source.suffix.lower() in PLAYED_BY_BROWSERS else ".wav"
    after, round_trip = (folder / f"{source.stem}-{name}{ending}" for name in ("edited", "round-trip"))
    outcome = editor.edit_file(source, after, report=report)
    report("writing the round trip", 1.0)
    write_round_trip(editor, info, round_trip)
    before = source
    if source.suffix.lower() not in PLAYED_BY_BROWSERS:
        before = write_as(info, folder / f"{source.stem}{ending}")
    recipe = editor.recipe.save(folder / f"{source.stem}-recipe.yaml")
    lines = python_lines(editor.recipe, source.name, after.name)
    return Edited(outcome, before, round_trip, after, recipe, lines, editor.recipe.during)


def write_round_trip(editor: Editor, info: AudioInfo, target: Path) -> None:
    """The sound as the codec gives it back without an edit."""
    blocks = read_blocks(info, int(BLOCK_S * info.sample_rate), "float64")
    with create_audio(target, info.sample_rate, info.channels, *kind_of(info, target), frames=info.frames) as writer:
        for after_CN in editor.round_trip(blocks, info.sample_rate):
            writer.write(after_CN)


def write_as(info: AudioInfo, target: Path) -> Path:
    """A copy in another format."""
    how: dict[str, Any] = {"frames": info.frames, "tags": read_tags(info)}
    with create_audio(target, info.sample_rate, info.channels, *kind_of(info, target), **how) as writer:
        for block_CN in read_blocks(info, int(BLOCK_S * info.sample_rate), "float64"):
            writer.write(block_CN)
    return target


def level_matched(sounds: Sequence[Path], folder: Path) -> list[Path]:
    """Copies (24 bit) that are all as loud (RMS in dB) as the quietest, for comparing by ear; silence stays silent."""
    levels_db = [loudness_db(sound) for sound in sounds]
    wanted_db = min((level_db for level_db in levels_db if level_db > SILENT_DB), default=0.0)
    matched = []
    for number, (sound, level_db) in enumerate(zip(sounds, levels_db, strict=True)):
        info = audio_info(sound)
        # turned down, a sound is never clipped
        gain = min(1.0, 10 ** ((wanted_db - level_db) / 20))
        target = folder / f"{number}-{sound.stem}-level.wav"
        how: dict[str, Any] = {"force": True, "frames": info.frames}
        with create_audio(target, info.sample_rate, info.channels, FORMATS[".wav"], "PCM_24", **how) as writer:
            for block_CN in read_blocks(info, int(BLOCK_S * info.sample_rate), "float64"):
                writer.write(block_CN * gain)
        matched.append(target)
    return matched


def loudness_db(sound: Path) -> float:
    info = audio_info(sound)
    power = sum(float(block_CN.square().sum()) for block_CN in read_blocks(info, info.sample_rate, "float64"))
    return decibels(math.sqrt(power / max(1, info.frames * info.channels)))


def measured_rows(outcome: Outcome) -> list[list[str]]:
    """What was asked for, and what was measured against the file and against the codec's round trip, by attribute."""
    names = {"loudness": "Loudness", "pitch": "Pitch", "brightness": "Brightness"}
    units = {name: "semitones" if name == "pitch" else GOALS[name].unit for name in names}
    return [
        [
            title,
            amount(outcome.requested.get(name), units[name], "as it is"),
            amount(outcome.measured[name], units[name], MISSING),
            amount(outcome.round_trip.get(name), units[name], MISSING),
        ]
        for name, title in names.items()
    ]


def kept_rows(outcome: Outcome) -> list[str]:
    """What else changed or stayed, a line each."""
    return kept_lines(outcome, "the chosen stretch")


def amount(value: float | None, unit: str, otherwise: str) -> str:
    # no "-0.00"
    return otherwise if value is None else f"{round(value, 2) + 0.0:+.2f} {unit}"
