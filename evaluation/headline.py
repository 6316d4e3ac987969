"""Rows of main numbers, as evaluators give them for the summary."""

from __future__ import annotations

from evaluation.report import Cell, TableRow, cell


def line(number: str, result: Cell, **beside: Cell) -> TableRow:
    """A main number with its interval, and the numbers that it is to be compared with."""
    parts = [f"{name.replace('_', ' ')} {cell(value)}" for name, value in beside.items() if value is not None]
    return {"number": number, "result": result, "beside it": "; ".join(parts) or None}
