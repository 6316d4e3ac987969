"""`Voice`: the section `voice` of a recipe, for codecs whose latent has the pitch on a coordinate.

voice:
  pitch_curve: [[0, 0], [1.5, 3], [3, 0]]   # semitones at seconds, straight lines between them
  pitch_range: 1.5                          # pitch moves 1.5 times as far from its median; 0: one constant pitch
  vibrato: "off"                            # the pitch without what is faster than about 3 Hz
  key: C major                              # every note goes to the nearest one of the key
  note: A3                                  # the median pitch goes here; MIDI numbers too
  whisper: 0.8                              # the share of voicing that is taken away
  formants: +2st                            # they stay where they are if this is left out
"""

from __future__ import annotations

import re
from collections.abc import Container
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FiniteFloat,
    PlainSerializer,
)

from steer.errors import RecipeError
from steer.recipe_values import amount, curve, written

LETTERS = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
ACCIDENTALS = {"": 0, "#": 1, "b": -1}
NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")
SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
CHROMATIC = "chromatic"
LOWEST, HIGHEST = 27.0, 99.0
"""MIDI notes between which a codec's pitch stays."""


def note_number(value: Any) -> Any:
    """Reads "A3", "Bb2" or "57" as a MIDI number (A4 is 69)."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"\s*([a-g])([#b]?)(-?\d)\s*", value, re.IGNORECASE)
    if found:
        letter, accidental, octave = found.groups()
        return 12.0 * (int(octave) + 1) + LETTERS[letter.lower()] + ACCIDENTALS[accidental.lower()]
    try:
        return float(value)
    except ValueError:
        raise ValueError(f"{value!r} is not a note such as A3, F#4 or 57 (a MIDI number)") from None


def note_name(midi: float | None) -> str | float | None:
    """The note's name, or the number where it lies between notes."""
    if midi is None or midi != round(midi):
        return midi
    return f"{NAMES[int(midi) % 12]}{int(midi) // 12 - 1}"


def key_name(value: Any) -> Any:
    """A key as it is written: "C major", "f# minor", "chromatic"."""
    if not isinstance(value, str):
        return value
    words = value.split()
    if [word.lower() for word in words] == [CHROMATIC]:
        return CHROMATIC
    if len(words) == 2 and words[1].lower() in SCALES and re.fullmatch(r"[a-g][#b]?", words[0], re.IGNORECASE):
        return f"{words[0][0].upper()}{words[0][1:].lower()} {words[1].lower()}"
    raise ValueError(f"{value!r} is not a key such as 'C major', 'F# minor' or 'chromatic'")


def pitch_classes(key: str) -> tuple[int, ...]:
    """The notes of a key, 0 (C) to 11 (B); of a minor key the natural minor scale."""
    if key == CHROMATIC:
        return tuple(range(12))
    tonic, scale = key.split()
    root = LETTERS[tonic[0].lower()] + ACCIDENTALS[tonic[1:]]
    return tuple(sorted((root + step) % 12 for step in SCALES[scale]))


def factor(value: Any) -> Any:
    """Reads "1.5x" as 1.5."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"\s*\+?(\d+\.?\d*|\.\d+)\s*x?\s*", value, re.IGNORECASE)
    if not found:
        raise ValueError(f"{value!r} is not a factor of 0 or more, such as 1.5x")
    return float(found[1])


def share(value: Any) -> Any:
    """Reads "0.8" or "80%" as 0.8."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*(%?)\s*", value)
    if not found:
        raise ValueError(f"{value!r} is not a share between 0 and 1, such as 0.8 or 80%")
    return float(found[1]) / (100 if found[2] else 1)


def curve_points(value: Any) -> Any:
    """Reads "0:0, 1.5:+3" as [[0, 0], [1.5, 3]]."""
    if isinstance(value, str):
        pairs = [part.split(":") for part in value.split(",")]
        try:
            return [[float(second), float(semitones.lower().removesuffix("st"))] for second, semitones in pairs]
        except ValueError:
            raise ValueError(f"{value!r} is not a curve of SECOND:SEMITONES, such as 0:0,1.5:+3") from None
    return value


def some_points(value: Any) -> Any:
    if value is not None and not value:
        raise ValueError("a curve needs points, such as [[0, 0], [1.5, 3]]")
    return curve(value)


def off(value: Any) -> Any:
    """YAML reads a bare `off` as false."""
    return "off" if value is False else value


class Voice(BaseModel):
    """See the module's head. What is None stays as it is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pitch_curve: Annotated[
        list[tuple[FiniteFloat, FiniteFloat]] | None, BeforeValidator(curve_points), AfterValidator(some_points)
    ] = None
    pitch_range: Annotated[FiniteFloat | None, Field(ge=0), BeforeValidator(factor)] = None
    vibrato: Annotated[Literal["off"] | None, BeforeValidator(off)] = None
    key: Annotated[str | None, BeforeValidator(key_name)] = None
    note: Annotated[
        FiniteFloat | None, Field(ge=LOWEST, le=HIGHEST), BeforeValidator(note_number), PlainSerializer(note_name)
    ] = None
    whisper: Annotated[FiniteFloat | None, Field(ge=0, le=1), BeforeValidator(share)] = None
    formants: Annotated[FiniteFloat | None, Field(ge=-12, le=12), amount("st"), written("st")] = None

    @property
    def requests(self) -> dict[str, Any]:
        """What is asked for, by name."""
        return {name: value for name in type(self).model_fields if (value := getattr(self, name)) is not None}

    @property
    def active(self) -> bool:
        return bool(self.requests)

    @property
    def reshapes(self) -> bool:
        """Whether the pitch of a frame moves by an amount that depends on the pitch of others."""
        return self.pitch_range is not None or self.vibrato is not None or self.key is not None

    @property
    def moves_pitch(self) -> bool:
        return self.reshapes or self.pitch_curve is not None or self.note is not None

    @property
    def vectors(self) -> tuple[str, ...]:
        """Names of the control vectors that it takes."""
        needed = {"pitch": self.moves_pitch, "whisper": self.whisper}
        return tuple(name for name, is_needed in needed.items() if is_needed)

    def check_vectors(self, found: Container[str], where: str) -> None:
        """Raises RecipeError for the first vector that is not there."""
        for name in self.vectors:
            if name not in found:
                raise RecipeError(f"voice: no control vector {name!r} {where}")


def shown(name: str, value: Any) -> str:
    """A request as people write it."""
    if name == "pitch_curve":
        return ", ".join(f"{second:g}:{format(semitones, '+g' if semitones else 'g')}" for second, semitones in value)
    if name == "note":
        return f"{note_name(value)}"
    forms = {"pitch_range": "{:g}x", "whisper": "{:g}", "formants": "{:+g}st"}
    return forms.get(name, "{}").format(value)
