"""`calibrate`: find the strengths of control vectors at which MEASURED changes of the sound reach what was asked for.

A search, not a formula: every trial renders the sound and measures it. Vectors of attributes that were not asked for
take part where they can undo a side effect, so that "+40 % brighter" does not come with "2 dB louder".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from steer.errors import EditError
from steer.goals import GOALS, Changes

HELD = 0.6
"""The search goes on until the errors of what is to be held are below this share of their tolerance."""
DEAF, PATIENCE = 0.05, 3
"""The search ends after so many trials in which no goal came nearer by more than this share."""
STEADY = ("loudness", "brightness")
"""Attributes that are held where they were if they are not asked for. Pitch holds by itself."""


@dataclass(frozen=True)
class Calibration:
    """Strength per vector, and what was asked for and measured with these strengths.

    `met` tells whether every goal was reached within its tolerance; where not, `reached` says how far it got.
    """

    strengths: dict[str, float]
    requested: dict[str, float]
    reached: dict[str, float | None]
    met: bool
    trials: int


def to_scale(attribute: str, change: float) -> float:
    """Changes on a scale where they add up: percentages become 100 ln(1 + p / 100)."""
    return 100 * math.log(max(1 + change / 100, 1e-3)) if GOALS[attribute].relative else change


def error_of(attribute: str, requested: float, reached: float | None) -> float:
    """Distance from the goal in units of the tolerance; infinite if it cannot be measured."""
    if reached is None or not math.isfinite(reached):
        return math.inf
    tolerance = GOALS[attribute].tolerance
    if GOALS[attribute].relative:
        # a small request is not met by leaving things as they are
        tolerance = min(tolerance, abs(requested) / 2) if requested else tolerance
        return 100 * abs((100 + reached) / (100 + requested) - 1) / tolerance
    return abs(reached - requested) / tolerance


def calibrate(
    goals: Mapping[str, float],
    trial: Callable[[Mapping[str, float]], Changes],
    available: Sequence[str] = ("loudness", "pitch", "brightness"),
    max_trials: int = 10,
) -> Calibration:
    """Search strengths with Broyden's method from the vectors' own units (+1 = 1 dB, 1 semitone, 1 %).

    `trial(strengths)` renders with `Shift`s of these strengths and gives the measured changes. `available` names the
    vectors there are.

    Raises:
        EditError: a goal without a vector.
    """
    missing = set(goals) - set(available)
    if missing:
        raise EditError(
            f"no control vector for {', '.join(sorted(missing))}; there are {', '.join(available) or 'none'}"
        )
    names = [name for name in available if name in goals or name in STEADY]
    wanted = np.array([to_scale(name, goals.get(name, 0.0)) for name in names])
    tolerance = np.array([GOALS[name].tolerance for name in names])
    strengths, slope = wanted.copy(), np.eye(len(names))
    best: tuple[float, np.ndarray, Changes] | None = None
    previous: tuple[np.ndarray, np.ndarray] | None = None
    count, answered = 0, False
    while count < max_trials:
        count += 1
        measured = trial(dict(zip(names, strengths.tolist(), strict=True)))
        errors = {name: error_of(name, goals.get(name, 0.0), measured.get(name)) for name in names}
        # what was asked for counts most; a side effect within its tolerance is worth little
        score = max(errors[name] for name in goals) + 0.25 * sum(
            errors[n] for n in names if n not in goals and errors[n] < math.inf
        )
        if best is None or score < best[0]:
            best = (score, strengths.copy(), measured)
        if all(errors[name] < GOALS[name].fine for name in goals) and all(
            errors[name] < HELD for name in names if name not in goals
        ):
            break
        known = np.array([measured.get(name) is not None for name in names])
        if not known.any() or any(errors[name] == math.inf for name in goals):
            break
        reached = np.array(
            [
                to_scale(name, measured[name] or 0.0) if ok else w
                for name, ok, w in zip(names, known, wanted, strict=True)
            ]
        )
        if previous is not None:
            step, response = strengths - previous[0], reached - previous[1]
            if step @ step > 1e-9:
                slope = slope + np.outer(response - slope @ step, step) / (step @ step)
        previous = (strengths.copy(), reached)
        answered = answered or any(abs(measured[name] or 0.0) > DEAF * abs(goals[name]) for name in goals)
        if count == PATIENCE and not answered:
            break
        move = np.linalg.lstsq(slope, wanted - reached, rcond=1e-2)[0]
        # a slope that a trial got wrong must not throw the search away
        limit = np.maximum(np.abs(wanted), 4 * tolerance)
        strengths = strengths + np.clip(move, -limit, limit)
    assert best is not None
    _, found, measured = best
    met = all(error_of(name, goals[name], measured.get(name)) <= 1.0 for name in goals)
    return Calibration(dict(zip(names, found.tolist(), strict=True)), dict(goals), dict(measured), met, count)
