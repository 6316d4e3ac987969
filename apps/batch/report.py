"""The report of a batch: counts, failures with their reasons, measured changes, speed; as a table, JSON and HTML."""

from __future__ import annotations

import html
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from apps.batch.jobs import BatchError, Row
from apps.batch.watch import Work, clock
from apps.files import make_folder, to_json, write_result
from apps.tables import shown
from steer.recipe import UNITS

SHOWN = 20
"""So many failures are shown."""
LISTED = 1000
"""So many files an HTML page lists."""


@dataclass(frozen=True)
class Change:
    """A measured change over all files: in how many it was measured, and asked for and met."""

    name: str
    files: int
    median: float
    least: float
    most: float
    asked: int
    met: int


@dataclass(frozen=True)
class BatchReport:
    """What a batch came to: `seconds` of sound in the files that are done; `this_call` is None behind the fact."""

    title: str
    rows: Sequence[Row]
    this_call: Work | None = None
    warning: str = ""

    @cached_property
    def done(self) -> list[Row]:
        return [row for row in self.rows if not row.error]

    @cached_property
    def failures(self) -> list[Row]:
        return [row for row in self.rows if row.error]

    @cached_property
    def changes(self) -> list[Change]:
        return list(changes_of(self.done))

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
            "warning": self.warning,
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
            for head in ("measured", "median", "from", "to", "files", "met"):
                table.add_column(head, justify="left" if head == "measured" else "right")
            for change in self.changes:
                table.add_row(*cells(change))
            console.print(table)
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
            heads = ("measured", "median", "from", "to", "files", "met")
            parts += ["<h2>Changes</h2>", html_table(heads, map(cells, self.changes))]
        if self.failures:
            failures = ((row.source, row.error) for row in self.failures)
            parts += ["<h2>Failures</h2>", html_table(("file", "why"), failures)]
        rest = f", of which the first {LISTED}" if len(self.done) > LISTED else ""
        parts.append(f"<h2>{len(self.done)} files done{rest}</h2>")
        names = [change.name for change in self.changes]
        rows = (file_cells(row, names) for row in self.done[:LISTED])
        parts.append(html_table(("file", "from", "sound (s)", "took (s)", *names), rows))
        return PAGE.format(title=html.escape(self.headline()), body="\n".join(parts))

    def complain(self) -> None:
        """A line on stderr for each failure, which names the file."""
        for row in self.failures:
            print(row.complaint(), file=sys.stderr)
        self.warn()

    def warn(self) -> None:
        if self.warning:
            print(self.warning, file=sys.stderr)

    def save(self, path: Path) -> None:
        """Raises BatchError for another ending than .html and .json, and AudioFileError if it cannot be written."""
        check_names([path])
        make_folder(path.parent)
        text = self.to_html() if path.suffix.lower() in HTML else to_json(self.to_dict()) + "\n"
        write_result(path, lambda partial: partial.write_text(text, "utf-8", "surrogateescape"), force=True)


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
    for name in UNITS:
        values = [one["measured"][name] for one in outcomes if one["measured"].get(name) is not None]
        asked = [one for one in outcomes if name in one["requested"]]
        if values:
            met = sum(bool(one["met"]) for one in asked)
            yield Change(name, len(values), median(values), min(values), max(values), len(asked), met)


def cells(change: Change) -> tuple[str, ...]:
    span = (shown(change.name, value) for value in (change.median, change.least, change.most))
    met = f"{change.met} of {change.asked}" if change.asked else ""
    return (change.name if change.asked else f"{change.name} (drift)", *span, str(change.files), met)


def file_cells(row: Row, names: Iterable[str]) -> tuple[str, ...]:
    measured = row.result.get("measured", {})
    changed = (shown(name, measured.get(name)) for name in names)
    return (row.key, row.source, f"{row.seconds:.2f}", f"{row.took:.2f}", *changed)


def html_table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    def line(cell: str, values: Iterable[str]) -> str:
        return "<tr>" + "".join(f"<{cell}>{html.escape(value)}</{cell}>" for value in values) + "</tr>"

    return "\n".join(["<table>", line("th", heads), *(line("td", row) for row in rows), "</table>"])
