"""Tables for the terminal: one edited file, the files of a batch, and rows of anything."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from apps.batch.jobs import Row
from apps.files import to_json
from apps.outcomes import drift, kept_lines, shown, verdict
from steer.editing.outcome import Outcome
from steer.goals import GOALS

FILES = 30
"""Up to so many files a batch has a table with a line for each."""


def show_outcome(outcome: Outcome, console: Console) -> None:
    """One file: an attribute a line, then what else changed."""
    console.print(outcome_table(outcome))
    for line in kept_lines(outcome):
        console.print(Text(line), soft_wrap=True)


def outcome_table(outcome: Outcome) -> Table:
    table = Table(title=Text(outcome.target), caption=verdict(outcome))
    part = outcome.measured_s < outcome.seconds - 0.01
    table.add_column("")
    table.add_column("requested", justify="right")
    table.add_column(
        f"measured in {outcome.measured_s:.0f} of {outcome.seconds:.0f} s" if part else "measured", justify="right"
    )
    if outcome.round_trip:
        table.add_column("round trip", justify="right")
    for name in outcome.measured:
        values = [outcome.measured[name], *([outcome.round_trip.get(name)] if outcome.round_trip else [])]
        if name in outcome.requested:
            cells = [shown(name, value) for value in values]
            table.add_row(name, shown(name, outcome.requested[name]), *cells)
        else:
            table.add_row(f"{name} (drift)", "", *(drift(name, value) for value in values), style="dim")
    return table


def batch_table(rows: Sequence[Row]) -> Table:
    """A file a line; goals as requested → measured."""
    outcomes = {row.key: Outcome(**row.result) for row in rows if not row.error}
    has_trip = any(outcome.round_trip for outcome in outcomes.values())
    has_kept = any(kept_lines(outcome) for outcome in outcomes.values())
    names = [name for name in GOALS if any(name in outcome.measured for outcome in outcomes.values())]
    heads = ["file", *names, *(["round trip"] if has_trip else []), *(["what else"] if has_kept else []), "result"]
    table = Table()
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        if row.error:
            table.add_row(Text(row.source), *[""] * (len(heads) - 2), Text(row.error, "red"))
            continue
        outcome = outcomes[row.key]
        cells = [
            f"{shown(name, outcome.requested[name])} → {shown(name, outcome.measured[name])}"
            if name in outcome.requested
            else drift(name, outcome.measured.get(name))
            for name in names
        ]
        if has_trip:
            trip = [shown(name, value) for name, value in outcome.round_trip.items() if value is not None]
            cells.append("\n".join(trip))
        if has_kept:
            cells.append("\n".join(kept_lines(outcome)))
        result = Text(verdict(outcome), "" if outcome.met else "yellow")
        table.add_row(Text(row.source), *map(Text, cells), result)
    return table


def show(title: str, rows: list[dict[str, Any]], as_json: bool) -> None:
    """Print rows as a table, or as JSON."""
    if as_json:
        print(to_json(rows))
        return
    table = Table(title=Text(title))
    for head in rows[0] if rows else ():
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell(value)) for value in row.values()))
    Console().print(table)


def cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if value is None else ", ".join(value) if isinstance(value, list) else str(value)
