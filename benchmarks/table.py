"""The report in a terminal: a table a line, and what it was measured on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from evaluation.report import Interval, Report, Row

HEADS = ("variant", "ms", "x base", "result", "aim")


def show(rows: Sequence[Row], remark: str) -> None:
    """What a line gave."""
    console = Console()
    for line, some in groupby(rows, key=lambda row: row["line"]):
        table = Table(*HEADS, title=line, title_justify="left")
        for row in some:
            table.add_row(*(Text(text) for text in cells(row)))
        console.print(table)
    console.print(Text(remark))


def show_machine(report: Report) -> None:
    console = Console()
    for key, value in report.about.items():
        if key != "remarks":
            console.print(Text(f"{key}: {value}"))
    console.print("Medians and their quartiles; x base round by round; ~ is a time of disturbed rounds.")


def cells(row: Row) -> tuple[str, ...]:
    disturbed = "~" if row["disturbed"] else ""
    result = f"{short(row['number'])} {row['unit']}" if row["number"] is not None else ""
    aim = f"{row['aim']} {row['reached']}" if row["aim"] else ""
    return row["variant"], disturbed + short(row["ms"]), short(row["x base"]), result, aim


def short(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Interval):
        return f"{short(value.value)} [{short(value.low)}, {short(value.high)}]"
    if value >= 100:
        return f"{value:,.0f}"
    # 1.004 is not 1
    return f"{value:.3f}" if value >= 0.1 else f"{value:.2g}"
