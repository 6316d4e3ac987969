from __future__ import annotations

import pytest

pytest.importorskip("gradio", reason="extra demo")

from apps.page.lines import python_lines
from apps.page.voice_controls import AS_IS, KEYS, voice_values
from steer.recipe import Recipe


def test_what_is_left_as_it_is_is_left_out() -> None:
    assert voice_values("", AS_IS, 1, " ", 0, 0, False) == {}
    assert voice_values(None, AS_IS, 1, None, 0, 0, False) == {}  # what gradio says of an untouched line


def test_each_control() -> None:
    voice = voice_values("A3", "C major", 0, "0:0, 1:+3", -2, 0.5, True)
    recipe = Recipe.build({"voice": voice})
    assert recipe.voice.requests == {
        "pitch_curve": [(0.0, 0.0), (1.0, 3.0)],
        "pitch_range": 0.0,
        "vibrato": "off",
        "key": "C major",
        "note": 57.0,
        "whisper": 0.5,
        "formants": -2.0,
    }
    assert "    voice={" in python_lines(recipe, "a.wav", "b.wav")


@pytest.mark.parametrize("key", KEYS[1:])
def test_every_key_is_one(key: str) -> None:
    assert Recipe.build({"voice": voice_values("", key, 1, "", 0, 0, False)}).voice.key == key
