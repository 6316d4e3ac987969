"""What `steer edit` tells at the end: requested and measured changes, and the drift of what was not asked for."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from apps.batch.jobs import Row
from steer.calibrate import error_of
from steer.editing.editor import Outcome
from steer.recipe import UNITS

FILES = 30
"""Up to so many files a batch has a table with a line for each."""


def shown(name: str, value: float | None) -> str:
    """A change with its unit."""
    if value is None:
        return "–"
    return f"{value:+.1f} %" if name == "brightness" else f"{value:+.2f} {UNITS[name]}"


def drift(name: str, value: float | None) -> str:
    """As `shown`, but pitch in cents."""
    return f"{100 * value:+.0f} cents" if name == "pitch" and value is not None else shown(name, value)


def verdict(outcome: Outcome) -> str:
    words = [("unchanged" if outcome.unchanged else "done") if outcome.met else "goal not reached"]
    if outcome.clipped:
        words.append(f"{outcome.clipped} samples clipped")
    return ", ".join(words)


def outcome_table(outcome: Outcome) -> Table:
    """One file, an attribute a line."""
    table = Table(title=Text(outcome.target), caption=verdict(outcome))
    part = outcome.measured_s < outcome.seconds - 0.01
    measured = f"measured in {outcome.measured_s:.0f} of {outcome.seconds:.0f} s" if part else "measured"
    table.add_column("")
    table.add_column("requested", justify="right")
    table.add_column(measured, justify="right")
    for name in UNITS:
        value = outcome.measured[name]
        if name in outcome.requested:
            table.add_row(name, shown(name, outcome.requested[name]), shown(name, value))
        else:
            table.add_row(f"{name} (drift)", "", drift(name, value), style="dim")
    return table


def batch_table(rows: Sequence[Row]) -> Table:
    """A file a line; goals as requested → measured."""
    table = Table()
    for head in ("file", *UNITS, "result"):
        table.add_column(head, overflow="fold")
    for row in rows:
        if row.error:
            table.add_row(Text(row.source), *[""] * len(UNITS), Text(row.error, "red"))
            continue
        outcome = Outcome(**row.result)
        cells = [
            f"{shown(name, outcome.requested[name])} → {shown(name, outcome.measured[name])}"
            if name in outcome.requested
            else drift(name, outcome.measured[name])
            for name in UNITS
        ]
        table.add_row(Text(row.source), *cells, Text(verdict(outcome), "" if outcome.met else "yellow"))
    return table


def shortfalls(outcome: Outcome) -> list[str]:
    """A line for each goal that was not reached: what was asked for, and how far it got."""
    lines = []
    for name, goal in outcome.requested.items():
        reached = outcome.measured[name]
        if error_of(name, goal, reached) > 1.0:
            got = "it could not be measured there" if reached is None else f"it got to {shown(name, reached)}"
            lines.append(f"{outcome.source}: {name} {shown(name, goal)} was not reached; {got}")
    return lines
