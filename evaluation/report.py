"""What evaluators give back: rows of numbers that print as a table and are saved as JSON, with intervals."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]


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


def bootstrap(
    values: Sequence[float], statistic: Callable[..., Any] = np.mean, seed: int = 0, rounds: int = 2000
) -> Interval:
    """Percentile bootstrap over clips (95 %) of a statistic that takes `axis`, such as `np.mean` or `np.median`."""
    data = np.asarray([value for value in values if np.isfinite(value)], dtype=float)
    if not len(data):
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    draws = np.random.default_rng(seed).integers(len(data), size=(rounds, len(data)))
    low, high = np.percentile(statistic(data[draws], axis=1), [2.5, 97.5])
    return Interval(float(statistic(data, axis=0)), float(low), float(high), len(data))


@dataclass
class Report:
    """A named table: `rows` of equal keys, `clips` behind them, and `about` (model, data, date, command)."""

    title: str
    rows: list[Row]
    clips: list[Row] = field(default_factory=list)
    about: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        def plain(value: Any) -> Any:
            return asdict(value) if isinstance(value, Interval) else value

        return {
            "title": self.title,
            "about": dict(self.about),
            "rows": [{key: plain(value) for key, value in row.items()} for row in self.rows],
            "clips": self.clips,
        }

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


def cell(value: Any, intervals: bool = True) -> str:
    if value is None:
        return "-"
    if isinstance(value, Interval) and not intervals:
        return value.short()
    return f"{value:.3g}" if isinstance(value, float) else str(value)
