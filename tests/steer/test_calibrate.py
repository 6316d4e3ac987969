from __future__ import annotations

from collections.abc import Mapping

import pytest

from steer.calibrate import calibrate, error_of, to_scale
from steer.errors import EditError


def coupled(strengths: Mapping[str, float]) -> dict[str, float | None]:
    """A sound whose brightness vector also makes it louder, and whose loudness saturates."""
    loudness, brightness = strengths.get("loudness", 0.0), strengths.get("brightness", 0.0)
    level = 0.7 * loudness + 0.05 * brightness
    scale = 0.8 * brightness + 0.5 * loudness
    return {
        "loudness": level,
        "brightness": 100 * (2.718281828 ** (scale / 100) - 1),
        "pitch": 0.9 * strengths.get("pitch", 0.0),
    }


@pytest.mark.parametrize(
    "goals", [{"loudness": 6.0}, {"brightness": 40.0}, {"loudness": -9.0, "brightness": -30.0}, {"pitch": 2.0}]
)
def test_goals_are_reached_and_the_rest_is_held(goals: dict[str, float]) -> None:
    found = calibrate(goals, coupled)
    assert found.met
    assert found.requested == goals
    for name, goal in goals.items():
        assert error_of(name, goal, found.reached[name]) < 0.2
    for name in {"loudness", "brightness"} - set(goals):
        assert error_of(name, 0.0, found.reached[name]) < 0.4  # what a side effect may be at the end of a search


def test_what_is_reported_is_what_was_measured_with_these_strengths() -> None:
    found = calibrate({"loudness": 6.0}, coupled, max_trials=2)
    assert found.reached == coupled(found.strengths)
    assert found.trials == 2


def test_an_unreachable_goal_says_how_far_it_got() -> None:
    def weak(strengths: Mapping[str, float]) -> dict[str, float | None]:
        return {"loudness": max(-2.0, min(2.0, strengths["loudness"])), "brightness": 0.0, "pitch": None}

    found = calibrate({"loudness": 9.0}, weak)
    assert not found.met
    assert found.reached["loudness"] == pytest.approx(2.0)


def test_a_goal_that_cannot_be_measured_is_not_met() -> None:
    found = calibrate({"pitch": 1.0}, lambda strengths: {"loudness": 0.0, "brightness": 0.0, "pitch": None})
    assert not found.met
    assert found.reached["pitch"] is None


def test_a_goal_without_a_vector_is_refused() -> None:
    with pytest.raises(EditError, match="no control vector for pitch"):
        calibrate({"pitch": 1.0}, coupled, available=["loudness"])


def test_percentages_add_up_on_their_scale() -> None:
    # twice 20 % brighter is 44 % brighter
    assert 2 * to_scale("brightness", 20.0) == pytest.approx(to_scale("brightness", 44.0))
    assert to_scale("loudness", 3.0) == 3.0


def test_brightness_error_is_relative_to_the_wanted_centroid() -> None:
    assert error_of("brightness", 100.0, 110.0) == pytest.approx(1.0)
    assert error_of("brightness", -50.0, -47.5) == pytest.approx(1.0)


def test_a_search_that_nothing_answers_ends_early() -> None:
    found = calibrate({"pitch": 2.0}, lambda strengths: {"loudness": 0.0, "brightness": 0.0, "pitch": 0.01})
    assert not found.met
    assert found.trials == 3
