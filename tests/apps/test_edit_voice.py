"""The options of `steer edit` for voice and pitch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from apps.flags import recipe_of
from apps.outcomes import voice_lines
from steer.recipe import Recipe

Run = Callable[..., tuple[int, str, str]]
Write = Callable[..., Path]


def of(base: Recipe | None = None, **voice: str | None) -> Recipe:
    return recipe_of(base, {}, [], [], None, None, None, None, voice=voice)


def test_options_make_a_recipe() -> None:
    recipe = of(pitch_curve="0:0,1.5:+3,3:0", pitch_range="1.5x", vibrato="off", key="C major", note="57", whisper=None)
    assert recipe.to_dict()["voice"] == {
        "pitch_curve": [[0, 0], [1.5, 3], [3, 0]],
        "pitch_range": 1.5,
        "vibrato": "off",
        "key": "C major",
        "note": "A3",
    }
    assert "voice" not in of(note=None).to_dict()


def test_options_take_the_place_of_a_recipes_own(tmp_path: Path) -> None:
    base = Recipe.load(of(note="A3", formants="+2st").save(tmp_path / "r.yaml"))
    voice = of(base, note="C4", whisper="0.5").voice
    assert (voice.note, voice.formants, voice.whisper) == (60.0, 2.0, 0.5)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--key", "H major", "is not a key such as"),
        ("--note", "X9", "is not a note such as A3"),
        ("--pitch-range", "wide", "is not a factor"),
        ("--pitch-curve", "up", "is not a curve of SECOND:SEMITONES"),
        ("--vibrato", "on", "should be 'off'"),
        ("--whisper", "2", "less than or equal to 1"),
        ("--formants", "2dB", "is not an amount such as +2st"),
    ],
)
def test_values_that_cannot_be_read(
    steer: Run, sound: Write, tmp_path: Path, option: str, value: str, message: str
) -> None:
    code, _, err = steer("edit", sound("a.wav", 0.1), "-o", tmp_path / "out.wav", option, value)
    assert code == 2
    assert f"options: voice.{option[2:].replace('-', '_')}: " in err and message in err
    assert not (tmp_path / "out.wav").exists()


def test_a_codec_without_a_pitch_coordinate(
    steer: Run, sound: Write, codec_folder: Path, sae_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.wav"
    code, _, err = steer(
        "edit", sound("a.wav", 0.1), "-o", out, "--model", codec_folder, "--sae", sae_folder, "--note", "A3"
    )
    assert code == 2
    assert "needs a codec with a pitch coordinate, such as starter:codec" in err


def test_what_was_measured_in_words() -> None:
    heard = {
        "note": {"asked": "A3", "unit": "MIDI", "measured": 57.02, "before": 55.4, "after": 57.02},
        "pitch_curve": {"asked": "0:0, 1:+3", "unit": "cents off", "measured": 4.3},
        "formants": {"asked": "+2st", "unit": "st", "measured": None},
    }
    assert voice_lines(heard) == [
        "note A3: 57.02 MIDI (before 55.4, after 57.02)",
        "pitch curve 0:0, 1:+3: 4.3 cents off",
        "formants +2st: – st",
    ]
    assert voice_lines({}) == []
