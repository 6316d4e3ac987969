"""What the lines have in common: how long and how large to measure, and the rows that they give."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from benchmarks.timing import SAMPLE_S, Spread, Timing, Variant, compare, measured_by_events
from evaluation.report import Row

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """`rounds` of every comparison; `quick` takes tiny sizes, which show that all runs and nothing else.

    `device` is that of the lines of `benchmarks.device`.
    """

    rounds: int = 9
    quick: bool = False
    device: str = "cpu"

    def size(self, published: T, quick: T) -> T:
        return quick if self.quick else published

    def compare(
        self, variants: Mapping[str, Variant | Callable[[], object]], base: str, sample_s: float = SAMPLE_S
    ) -> dict[str, Timing]:
        """Small differences of short calls take longer samples."""
        measure = measured_by_events if self.device.startswith("cuda") else None
        return compare(variants, base, self.rounds, self.size(sample_s, 0.0), measure)


@dataclass(frozen=True)
class Aim:
    """What a number is to reach."""

    relation: str
    limit: float

    def __str__(self) -> str:
        return f"{self.relation} {self.limit:g}"

    def reached(self, value: float) -> bool:
        return value <= self.limit if self.relation == "<=" else value >= self.limit


@dataclass(frozen=True)
class Told:
    """What a line found: its rows, and a remark of what was not there."""

    rows: list[Row]
    remark: str = ""


def row(
    line: str,
    variant: str,
    timing: Timing | None = None,
    *,
    number: float | None = None,
    unit: str | None = None,
    aim: Aim | None = None,
) -> Row:
    """A row of the table. The aim is for `number`, or where there is none for the ratio to the base."""
    ratio = timing.ratio if timing else None
    value = number if number is not None else ratio.value if ratio else None
    return {
        "line": line,
        "variant": variant,
        "ms": in_ms(timing.seconds) if timing else None,
        "x base": ratio,
        "number": number,
        "unit": unit,
        "aim": str(aim) if aim else None,
        "reached": ("yes" if aim.reached(value) else "no") if aim and value is not None else None,
        "disturbed": "yes" if timing and timing.disturbed else None,
    }


def in_ms(seconds: Spread) -> Spread:
    return Spread(1e3 * seconds.value, 1e3 * seconds.low, 1e3 * seconds.high, seconds.count)
