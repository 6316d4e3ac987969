"""`python -m benchmarks`: all lines, or some of them, as a table and as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks import machine
from benchmarks.growth import drawn
from benchmarks.lines import CPU_LINES, DEVICE_LINES, LINES, measure, told_apart
from benchmarks.settings import Settings
from benchmarks.table import show, show_machine
from evaluation.frame import write


def main(
    lines: Annotated[
        str, typer.Option(help=f"Some of {','.join(LINES)}; by default {','.join(CPU_LINES)}, or the rest for a GPU.")
    ] = "",
    device: Annotated[str, typer.Option(help="cpu, or cuda for the lines of a GPU.")] = "cpu",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of every comparison.")] = 9,
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch.")] = 2,
    quick: Annotated[bool, typer.Option(help="Tiny sizes: shows that all runs, and nothing else.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for the JSON, the table and a figure of growth.")] = None,
) -> None:
    """How fast: medians [quartiles] of ratios to a base measured in the same rounds, random weights."""
    names = [name for name in lines.split(",") if name] or list(CPU_LINES if device == "cpu" else DEVICE_LINES)
    if device not in ("cpu", "cuda"):
        raise typer.BadParameter(f"there is no device {device!r}; there are cpu and cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise typer.BadParameter("torch cannot use a GPU here")
    unknown = [name for name in names if name not in LINES]
    if unknown:
        raise typer.BadParameter(f"there is no line {', '.join(unknown)!r}; there are {', '.join(LINES)}")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
    shown = 0
    with machine.threads(threads):
        for report in measure(names, Settings(rounds, quick, device), told_apart):
            show(report.rows[shown:], list(report.about["remarks"].values())[-1])
            shown = len(report.rows)
            if out is not None:
                write(report, out, "benchmark", drawn(report.rows))
    show_machine(report)


if __name__ == "__main__":
    typer.run(main)
