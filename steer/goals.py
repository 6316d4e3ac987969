"""`Goal`: an attribute of sounds that an edit may be asked to change by an amount that is measured. `GOALS` has all.

A goal of one's own is a line, `GOALS["roughness"] = Goal("%", 10.0, roughness)`, and a control vector of its name
beside an SAE. Installed packages add theirs by entry points (`audiosteer.goals`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from hooks.extensions import Registry
from steer.errors import EditError

Measure = Callable[[Tensor, int], float | None]
Changes = dict[str, float | None]
"""What changed, by goal and in its unit; None where it cannot be measured."""
"""The value of a waveform [C, N] at a rate in Hz, None where it has none."""


@dataclass(frozen=True)
class Goal:
    """An attribute in a `unit`; with "%" changes are relative to the value before.

    `tolerance` is how near to the goal counts as reached; with "%", in % of the value that is wanted. The search goes
    on until the error is below the share `fine` of it. `measure` is None for those that `steer.acoustics` measures
    together.
    """

    unit: str
    tolerance: float
    measure: Measure | None = None
    fine: float = 0.2

    @property
    def relative(self) -> bool:
        return self.unit == "%"

    def change(self, before: float | None, after: float | None) -> float | None:
        """From one value to another, in the unit; None where there is none."""
        if before is None or after is None or (self.relative and before <= 0):
            return None
        return 100 * (after / before - 1) if self.relative else after - before


GOALS: Registry[Goal] = Registry(
    "goal",
    EditError,
    {"loudness": Goal("dB", 0.5), "pitch": Goal("st", 0.5, fine=0.3), "brightness": Goal("%", 5.0)},
)
