"""All lines, each measured in a process of its own.

After others, large temporaries of some libraries cost less than they do in a fresh process, such as their users' are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import torch

from benchmarks.codecs import codec_line
from benchmarks.device import ceiling_line, clip_line, encode_line, layers_line, step_line
from benchmarks.growth import growth_line
from benchmarks.machine import describe
from benchmarks.saes import edit_line, sae_line, train_line
from benchmarks.settings import Settings, Told
from benchmarks.whole_models import decoder_line, hook_line, hubert_line, whisper_line
from evaluation.report import Report
from hooks.errors import MissingExtraError

CPU_LINES: dict[str, Callable[[Settings], Told]] = {
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
DEVICE_LINES: dict[str, Callable[[Settings], Told]] = {
    "ceilings": ceiling_line,
    "encode": encode_line,
    "step": step_line,
    "layers": layers_line,
    "clip": clip_line,
}
LINES = CPU_LINES | DEVICE_LINES


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
    report = Report(
        "Benchmark",
        [],
        about={**describe(), "device": settings.device, "rounds": settings.rounds, "quick": settings.quick},
    )
    remarks: dict[str, str] = {}
    for name in names:
        line = run(name, settings)
        remarks[name] = line.remark
        report = replace(report, rows=report.rows + line.rows, about={**report.about, "remarks": dict(remarks)})
        yield report
