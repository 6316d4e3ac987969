"""`python -m evaluation.benchmark`: all lines, or some of them, as a table and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer

from evaluation.benchmark.codecs import codec_line
from evaluation.benchmark.growth import growth_line
from evaluation.benchmark.machine import describe
from evaluation.benchmark.saes import edit_line, sae_line, train_line
from evaluation.benchmark.settings import Settings, Told
from evaluation.benchmark.table import show
from evaluation.benchmark.whole_models import decoder_line, hook_line, hubert_line, whisper_line
from evaluation.report import Report, Row
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


def measure(names: Sequence[str], settings: Settings) -> Report:
    """The lines one after another; one whose model's library is not installed is told to be missing."""
    rows: list[Row] = []
    remarks: dict[str, str] = {}
    for name in names:
        try:
            told = LINES[name](settings)
        except MissingExtraError as error:
            remarks[name] = f"left out: {error}"
            continue
        rows += told.rows
        remarks[name] = told.remark
    about = {**describe(), "rounds": settings.rounds, "quick": settings.quick, "remarks": remarks}
    return Report("Benchmark", rows, about=about)


def main(
    lines: Annotated[str, typer.Option(help=f"Some of {','.join(LINES)}.")] = ",".join(LINES),
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of every comparison.")] = 9,
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch.")] = 2,
    quick: Annotated[bool, typer.Option(help="Tiny sizes: shows that all runs, and nothing else.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for benchmark.json and benchmark.md.")] = None,
) -> None:
    """How fast: medians [quartiles] of ratios to a base measured in the same rounds, random weights."""
    names = [name for name in lines.split(",") if name]
    unknown = [name for name in names if name not in LINES]
    if unknown or not names:
        raise typer.BadParameter(f"there is no line {', '.join(unknown)!r}; there are {', '.join(LINES)}")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        report = measure(names, Settings(rounds, quick))
    finally:
        torch.set_num_threads(before)
    show(report)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write(report, out, "benchmark")


if __name__ == "__main__":
    typer.run(main)
