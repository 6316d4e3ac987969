"""The main numbers of all evaluations of a speech model, in one table and one picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import astuple, fields
from typing import Any

from evaluation import figures
from evaluation.concepts import Needed
from evaluation.report import Interval, Report, Row, Share, cell

FALSE_ALARMS, REMOVAL, STABILITY, DOWNSTREAM = "false-alarms", "ablation", "stability", "downstream"
"""Names of evaluations, or what they begin with."""


def summarise(model: str, reports: Mapping[str, Report], about: Mapping[str, Any]) -> Report:
    """A line for each main number: the result with its interval, and what stands beside it."""
    rows = [
        {"evaluation": name, **row}
        for name, report in reports.items()
        for kind, numbers in NUMBERS.items()
        if name.startswith(kind)
        for row in numbers(report)
    ]
    return Report(f"{model}: main numbers", rows, [], about)


def draw(reports: Mapping[str, Report], title: str) -> Any:
    """All in one figure. Raises MissingExtraError if matplotlib is not installed."""
    panels: list[figures.Panel] = []
    if FALSE_ALARMS in reports:
        panels += figures.false_alarms(reports[FALSE_ALARMS])
    removals = {name.removeprefix(f"{REMOVAL}-"): one for name, one in reports.items() if name.startswith(REMOVAL)}
    if removals:
        panels.append(figures.removal(removals))
    if STABILITY in reports:
        panels.append(figures.stability(reports[STABILITY]))
    if DOWNSTREAM in reports:
        panels.append(figures.downstream(reports[DOWNSTREAM]))
    return figures.figure(panels, title)


def line(number: str, result: Interval | None, **beside: Any) -> Row:
    told = [f"{name.replace('_', ' ')} {cell(value)}" for name, value in beside.items() if value is not None]
    return {"number": number, "result": result, "beside it": "; ".join(told) or None}


def share(value: Interval | None) -> Interval | None:
    """In per cent again, after it was read from a file."""
    if value is None or isinstance(value, Needed):
        return value
    return Share(*astuple(value)[: len(fields(Share))])


def of_false_alarms(report: Report) -> list[Row]:
    rows = {row["method"]: row for row in report.rows}
    plain, steered = rows["baseline"], rows["SAE steering"]

    def others(column: str, kind: Callable[[Any], Any]) -> dict[str, Any]:
        left = [name for name in rows if name not in ("baseline", "SAE steering")]
        return {name: None if rows[name][column] is None else kind(rows[name][column]) for name in left}

    alarms, fewer, words, wer, change = (
        steered[column] for column in ("false alarms", "fewer", "words/min", "WER", "WER change")
    )
    return [
        line("clips without speech in which words are heard", share(alarms), unedited=share(plain["false alarms"])),
        line("of these gone", share(fewer), **others("fewer", lambda one: f"{100 * one.value:.3g} %")),
        line("words per minute without speech", words, unedited=plain["words/min"]),
        line("WER", share(wer), unedited=share(plain["WER"])),
        line("WER change in points", change, **others("WER change", lambda one: f"{one.value:+.2g}")),
    ]


def of_removal(report: Report) -> list[Row]:
    row = report.rows[-1]
    return [
        line(f"features needed, {row['concept']}", share(row["needed"]), random=share(row["random"])),
        line("what is left of the concept", share(row.get("left"))),
        line("what other concepts keep", share(row["others keep"])),
    ]


def of_stability(report: Report) -> list[Row]:
    return [
        line(
            f"features matched at {row['site']}, {row['measure']}",
            share(row["matched"]),
            in_every_seed=share(row["in every seed"]),
            control=share(row["control"]),
        )
        for row in report.rows
    ]


def of_downstream(report: Report) -> list[Row]:
    plain, *rows = report.rows
    cost = "WER" if "WER" in plain else "accuracy"
    return [
        line(f"{cost} through the SAE at {row['site']}", share(row[cost]), unedited=share(plain[cost])) for row in rows
    ]


NUMBERS: dict[str, Callable[[Report], list[Row]]] = {
    FALSE_ALARMS: of_false_alarms,
    REMOVAL: of_removal,
    STABILITY: of_stability,
    DOWNSTREAM: of_downstream,
}
