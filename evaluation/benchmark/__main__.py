"""`python -m evaluation.benchmark`: all lines, or some of them, as a table and as JSON.

Every line runs in a fresh process: after others, large temporaries of some libraries cost less than they do for a user.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated

import torch
import typer

from evaluation.benchmark.codecs import codec_line
from evaluation.benchmark.growth import drawn, growth_line
from evaluation.benchmark.machine import describe
from evaluation.benchmark.saes import edit_line, sae_line, train_line
from evaluation.benchmark.settings import Settings, Told
from evaluation.benchmark.table import show, show_machine
from evaluation.benchmark.whole_models import decoder_line, hook_line, hubert_line, whisper_line
from evaluation.report import Report
from evaluation.suite import write
from hooks.errors import MissingExtraError

LINES: dict[str, Callable[[Settings], Told]] = {
    "hook": hook_line,
    "decoder": decoder_line,
    "whisper": whisper_line,
    "hubert": hubert_line,
    "edit": edit_line,
    "sae": sae_line,
    "train": train_line,
    "codec": codec_line,
    "growth": growth_line,
}


def told(name: str, settings: Settings) -> Told:
    """What a line says; one whose model's library is not installed is told to be missing."""
    try:
        return LINES[name](settings)
    except MissingExtraError as error:
        return Told([], f"left out: {error}")


def told_apart(name: str, settings: Settings) -> Told:
    """The same from a fresh process with as many threads."""
    with ProcessPoolExecutor(1, get_context("spawn"), torch.set_num_threads, (torch.get_num_threads(),)) as process:
        return process.submit(told, name, settings).result()


def measure(names: Sequence[str], settings: Settings, run: Callable[[str, Settings], Told] = told) -> Iterator[Report]:
    """The lines one after another: after each, the report of all so far."""
    report = Report("Benchmark", [], about={**describe(), "rounds": settings.rounds, "quick": settings.quick})
    remarks: dict[str, str] = {}
    for name in names:
        line = run(name, settings)
        remarks[name] = line.remark
        report = replace(report, rows=report.rows + line.rows, about={**report.about, "remarks": dict(remarks)})
        yield report


def main(
    lines: Annotated[str, typer.Option(help=f"Some of {','.join(LINES)}.")] = ",".join(LINES),
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of every comparison.")] = 9,
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch.")] = 2,
    quick: Annotated[bool, typer.Option(help="Tiny sizes: shows that all runs, and nothing else.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for the JSON, the table and a figure of growth.")] = None,
) -> None:
    """How fast: medians [quartiles] of ratios to a base measured in the same rounds, random weights."""
    names = [name for name in lines.split(",") if name]
    unknown = [name for name in names if name not in LINES]
    if unknown or not names:
        raise typer.BadParameter(f"there is no line {', '.join(unknown)!r}; there are {', '.join(LINES)}")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    shown = 0
    try:
        for report in measure(names, Settings(rounds, quick), told_apart):
            show(report.rows[shown:], list(report.about["remarks"].values())[-1])
            shown = len(report.rows)
            if out is not None:
                write(report, out, "benchmark", drawn(report.rows))
    finally:
        torch.set_num_threads(before)
    show_machine(report)


if __name__ == "__main__":
    typer.run(main)
