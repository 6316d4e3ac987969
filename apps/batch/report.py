"""The report of a batch: counts, failures with their reasons, measured changes, speed; as a table, JSON and HTML."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from apps.batch.jobs import BatchError, Row
from apps.batch.run import Finished
from apps.batch.watch import Work, clock
from apps.files import make_folder, to_json, write_result
from apps.messages import log
from apps.outcomes import ABOVE_BAND, STOI, met, shown
from steer.goals import GOALS

SHOWN = 20
"""So many failures are shown."""
LISTED = 1000
"""So many files an HTML page lists."""


@dataclass(frozen=True)
class Change:
    """A measured change over all files: in how many it was measured, and asked for and met. `round_trip` is the median
    of the changes against the codec's plain round trip, where they were measured."""

    name: str
    files: int
    median: float
    least: float
    most: float
    asked: int
    met: int
    round_trip: float | None = None


@dataclass(frozen=True)
class Side:
    """What else an edit does to a file: where its value lies in a row's result, and how that is written."""

    name: str
    of: Callable[[dict[str, Any]], float | None]
    written: Callable[[float], str]


SIDES = (
    Side(STOI, lambda result: kept_of(result).get("stoi"), "{:.3f}".format),
    Side(ABOVE_BAND, lambda result: kept_of(result).get("above_band_db"), "{:+.2f} dB".format),
    # 0 is as good as none
    Side("limiter", lambda result: result.get("limited_db") or None, "{:.2f} dB".format),
    Side("clipped samples", lambda result: result.get("clipped") or None, "{:.0f}".format),
)
"""Older journals lack some of these."""


@dataclass(frozen=True)
class SideEffect:
    """One of `SIDES` over the files that have it."""

    name: str
    files: int
    median: float
    least: float
    most: float


@dataclass(frozen=True)
class BatchReport:
    """What a batch came to: `seconds` of sound in the files that are done; `this_call` is None behind the fact."""

    title: str
    rows: Sequence[Row]
    this_call: Work | None = None
    warning: str = ""

    @classmethod
    def of(cls, title: str, finished: Finished) -> BatchReport:
        """Of what `do_batch` gives."""
        return cls(title, finished.rows, finished.this_call, finished.warning)

    @cached_property
    def done(self) -> list[Row]:
        return [row for row in self.rows if not row.error]

    @cached_property
    def failures(self) -> list[Row]:
        return [row for row in self.rows if row.error]

    @cached_property
    def changes(self) -> list[Change]:
        return list(changes_of(self.done))

    @cached_property
    def side_effects(self) -> list[SideEffect]:
        return list(side_effects_of(self.done))

    @property
    def seconds(self) -> float:
        return sum(row.seconds for row in self.done)

    @property
    def failed(self) -> bool:
        return bool(self.failures or self.warning)

    def to_dict(self) -> dict[str, Any]:
        work = self.this_call
        return {
            "title": self.title,
            "files": len(self.rows),
            "done": len(self.done),
            "failed": len(self.failures),
            "sound_s": self.seconds,
            "this_call": {**asdict(work), "sound_s_per_s": work.speed} if work else None,
            "changes": [asdict(change) for change in self.changes],
            "side_effects": [asdict(effect) for effect in self.side_effects],
            "warning": self.warning,
            "notes": [
                {"source": row.source, "note": note} for row in self.done for note in row.result.get("notes") or ()
            ],
            "failures": [row.failure() for row in self.failures],
        }

    def headline(self) -> str:
        return f"{len(self.done)} of {len(self.rows)} files {self.title}"

    def sentences(self) -> list[str]:
        told = [f"{clock(self.seconds)} of sound"]
        if self.this_call is not None:
            work = self.this_call
            told.append(
                f"{work.files} files in this call, {clock(work.seconds)} of sound in {work.wall:.1f} s, "
                f"{work.speed:.1f} s a second"
                if work.files
                else "nothing was left to do"
            )
        return told

    def show(self, console: Console) -> None:
        """Counts, measured changes, and the first failures."""
        console.print(Text(self.headline(), "bold"), Text("; ".join(self.sentences())), sep="\n")
        if self.changes:
            table = Table()
            for head in CHANGE_HEADS:
                table.add_column(head, justify="left" if head == "measured" else "right")
            for change in self.changes:
                table.add_row(*cells(change))
            console.print(table)
        for effect in self.side_effects:
            name, median, least, most, files = side_cells(effect)
            console.print(Text(f"{name}: median {median}, from {least} to {most} ({files} files)"), soft_wrap=True)
        for row in self.failures[:SHOWN]:
            console.print(Text(row.complaint(), "red"), soft_wrap=True)
        if len(self.failures) > SHOWN:
            console.print(Text(f"... and {len(self.failures) - SHOWN} more: --report FILE has them all", "red"))

    def to_html(self) -> str:
        """One page, with nothing from elsewhere."""
        parts = [
            f"<h1>{html.escape(self.headline())}</h1>",
            *(f"<p>{html.escape(one)}</p>" for one in self.sentences()),
        ]
        if self.changes:
            parts += ["<h2>Changes</h2>", html_table(CHANGE_HEADS, map(cells, self.changes))]
        if self.side_effects:
            heads = ("what else", "median", "from", "to", "files")
            parts += ["<h2>What else changed</h2>", html_table(heads, map(side_cells, self.side_effects))]
        if self.failures:
            failures = ((row.source, row.error) for row in self.failures)
            parts += ["<h2>Failures</h2>", html_table(("file", "why"), failures)]
        rest = f", of which the first {LISTED}" if len(self.done) > LISTED else ""
        parts.append(f"<h2>{len(self.done)} files done{rest}</h2>")
        names = [change.name for change in self.changes]
        trips = [change.name for change in self.changes if change.round_trip is not None]
        sides = [side for side in SIDES if side.name in {effect.name for effect in self.side_effects}]
        rows = (file_cells(row, names, trips, sides) for row in self.done[:LISTED])
        others = (*(f"{name} (round trip)" for name in trips), *(side.name for side in sides))
        parts.append(html_table(("file", "from", "sound (s)", "took (s)", *names, *others), rows))
        return PAGE.format(title=html.escape(self.headline()), body="\n".join(parts))

    def complain(self) -> None:
        """A line on stderr for each failure, which names the file."""
        for row in self.failures:
            log.error(row.complaint())

    def tell_notes(self) -> None:
        """A line on stderr for each thing that there is to know of a sound, such as a header that was wrong."""
        for row in self.done:
            for note in row.result.get("notes") or ():
                log.warning(f"{row.source}: {note}")

    def warn(self) -> None:
        if self.warning:
            log.error(self.warning)

    def save(self, path: Path) -> None:
        """Raises BatchError for another ending than .html and .json, and AudioFileError if it cannot be written."""
        check_names([path])
        make_folder(path.parent)
        text = self.to_html() if path.suffix.lower() in HTML else to_json(self.to_dict()) + "\n"
        write_result(path, lambda partial: partial.write_text(text, "utf-8", "surrogateescape"), force=True)


CHANGE_HEADS = ("measured", "median", "from", "to", "files", "met", "round trip")
HTML = (".html", ".htm")
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>
<style>
:root {{ color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif }}
body {{ max-width: 70rem; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
th, td {{ padding: .2rem .8rem .2rem 0; text-align: left; border-bottom: 1px solid #8884; overflow-wrap: anywhere }}
</style>
{body}
</html>
"""


def check_names(paths: Iterable[Path]) -> None:
    """Raises BatchError where it is not known how to write one."""
    for path in paths:
        if path.suffix.lower() not in (*HTML, ".json"):
            raise BatchError(f"--report {path}: a report is .html or .json")


def changes_of(rows: Iterable[Row]) -> Iterable[Change]:
    outcomes = [row.result for row in rows if "measured" in row.result]
    for name in GOALS:
        values = [one["measured"][name] for one in outcomes if one["measured"].get(name) is not None]
        asked = [one for one in outcomes if name in one["requested"]]
        if values:
            reached = sum(met(name, one["requested"][name], one["measured"].get(name)) for one in asked)
            trips = [trip for one in outcomes if (trip := round_trip_of(one).get(name)) is not None]
            span = median(values), min(values), max(values)
            yield Change(name, len(values), *span, len(asked), reached, median(trips) if trips else None)


def side_effects_of(rows: Iterable[Row]) -> Iterable[SideEffect]:
    outcomes = [row.result for row in rows if "measured" in row.result]
    for side in SIDES:
        values = [value for one in outcomes if (value := side.of(one)) is not None]
        if values:
            yield SideEffect(side.name, len(values), median(values), min(values), max(values))


def kept_of(result: dict[str, Any]) -> dict[str, Any]:
    return result.get("kept") or {}


def round_trip_of(result: dict[str, Any]) -> dict[str, float | None]:
    return result.get("round_trip") or {}


def cells(change: Change) -> tuple[str, ...]:
    span = (shown(change.name, value) for value in (change.median, change.least, change.most))
    reached = f"{change.met} of {change.asked}" if change.asked else ""
    trip = "" if change.round_trip is None else shown(change.name, change.round_trip)
    return (change.name if change.asked else f"{change.name} (drift)", *span, str(change.files), reached, trip)


def side_cells(effect: SideEffect) -> tuple[str, ...]:
    (side,) = (side for side in SIDES if side.name == effect.name)
    return (effect.name, *map(side.written, (effect.median, effect.least, effect.most)), str(effect.files))


def file_cells(row: Row, names: Iterable[str], trips: Iterable[str], sides: Iterable[Side]) -> tuple[str, ...]:
    measured, trip = row.result.get("measured", {}), round_trip_of(row.result)
    changed = [shown(name, measured.get(name)) for name in names]
    changed += [shown(name, trip.get(name)) for name in trips]
    changed += ["–" if (value := side.of(row.result)) is None else side.written(value) for side in sides]
    return (row.key, row.source, f"{row.seconds:.2f}", f"{row.took:.2f}", *changed)


def html_table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    def line(cell: str, values: Iterable[str]) -> str:
        return "<tr>" + "".join(f"<{cell}>{html.escape(value)}</{cell}>" for value in values) + "</tr>"

    return "\n".join(["<table>", line("th", heads), *(line("td", row) for row in rows), "</table>"])
