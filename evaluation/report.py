"""What evaluators give back: rows of numbers that print as a table and are saved as JSON, with intervals."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

Progress = Callable[[list[Any]], Iterable[Any]]
"""Goes through a list, and says how far it is."""


@dataclass(frozen=True)
class Interval:
    """A number with its 95 % confidence interval and the count it stands on."""

    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.short()} [{self.low:.3g}, {self.high:.3g}]"

    def short(self) -> str:
        """Without the interval."""
        return f"{self.value:.3g}"


@dataclass(frozen=True)
class Share(Interval):
    """A share, shown in per cent."""

    def __str__(self) -> str:
        return f"{self.short()} [{100 * self.low:.3g}, {100 * self.high:.3g}]"

    def short(self) -> str:
        return f"{100 * self.value:.3g} %"


@dataclass(frozen=True)
class Needed(Share):
    """A share that had to be searched; where not even the largest that was tried is enough, it counts as all."""

    reached: bool = True

    def __str__(self) -> str:
        return super().__str__() if self.reached else "not reached"

    def short(self) -> str:
        return super().short() if self.reached else "not reached"


Row = dict[str, Any]
"""A row of raw results, of one clip or edit."""
Cell = str | int | float | Interval | None
TableRow = Mapping[str, Cell]
"""A row of a table that is shown."""
INTERVALS: dict[str, type[Interval]] = {"interval": Interval, "share": Share, "needed": Needed}
"""Kinds of interval by their names in JSON."""


@dataclass
class Report:
    """A named table: `rows` of equal keys, `clips` behind them, and `about` (model, data, date, command)."""

    title: str
    rows: list[Row]
    clips: list[Row] = field(default_factory=list)
    about: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "about": dict(self.about),
            "rows": [{key: to_json(value) for key, value in row.items()} for row in self.rows],
            "clips": self.clips,
        }

    @classmethod
    def load(cls, path: str | Path) -> Report:
        """A report that was saved. Raises OSError, ValueError, KeyError or TypeError where the file is not one."""
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        rows = [{key: from_json(cell) for key, cell in row.items()} for row in values["rows"]]
        return cls(values["title"], rows, values["clips"], values["about"])

    def save(self, path: str | Path) -> Path:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")
        return path

    def markdown(self) -> str:
        """The table as Markdown, as it stands in the README."""
        heads = list(self.rows[0]) if self.rows else []
        lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
        lines += ["| " + " | ".join(cell(row[head]) for head in heads) + " |" for row in self.rows]
        return "\n".join(lines)

    def print(self, intervals: bool = True) -> None:
        """Show the table; without the `intervals` also one of many columns fits."""
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(title=self.title, pad_edge=intervals, collapse_padding=not intervals)
        if not intervals:
            table.box = box.SIMPLE_HEAD
        shown = [[cell(value, intervals) for value in row.values()] for row in self.rows]
        for index, head in enumerate(self.rows[0] if self.rows else []):
            # numbers stay whole where they are alone; names are folded
            alone = not intervals and not isinstance(self.rows[0][head], str)
            words = [*head.split(), *(line[index] for line in shown)]
            table.add_column(head, overflow="fold", min_width=max(map(len, words)) if alone else None)
        for line in shown:
            # names of clips may hold what rich reads as markup
            table.add_row(*(Text(value) for value in line))
        Console().print(table)


def to_json(value: Any) -> Any:
    """A cell as plain values, with the kind of an interval; of a kind defined elsewhere the nearest of `INTERVALS`."""
    if not isinstance(value, Interval):
        return value
    names = {known: name for name, known in INTERVALS.items()}
    kind = next(known for known in type(value).__mro__ if known in names)
    return {"kind": names[kind], **{one.name: getattr(value, one.name) for one in fields(kind)}}


def from_json(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    values = dict(value)
    return INTERVALS[values.pop("kind")](**values)


def cell(value: Any, intervals: bool = True) -> str:
    if value is None:
        return "-"
    if isinstance(value, Interval) and not intervals:
        return value.short()
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def line(number: str, result: Cell, **beside: Cell) -> TableRow:
    """A main number with its interval, and the numbers that it is to be compared with."""
    parts = [f"{name.replace('_', ' ')} {cell(value)}" for name, value in beside.items() if value is not None]
    return {"number": number, "result": result, "beside it": "; ".join(parts) or None}
