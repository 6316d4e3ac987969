"""A plan on paper: what so many hours of sound take, from measured costs. All of it is arithmetic that can be checked.

With `hours` of sound in files of `FILE_S` seconds and costs as in `benchmarks.batch.costs`:

    files    = hours x 3600 / FILE_S
    core s   = files x (file_s + FILE_S x sound_s)
    array    = core s / workers + start_s                    each element plans and notes its own part
    bundles  = core s / WORK_S, or files / MOST_FILES where that is more
    cluster  = the longest of: core s / workers, bundles x bundle_s, files x line_s; planning comes before
    planning = files x header_s, one after another, and files x planned bytes of memory
    storage  = (read + written) x seconds of sound, in the time of the array
"""

from __future__ import annotations

from dataclasses import dataclass

from apps.batch.engine import MOST_FILES, WORK_S
from benchmarks.batch.costs import LONG_S, Costs, Work
from evaluation.report import Row

HOURS, WORKERS = 1_000_000, 1_000
FILE_S = LONG_S
GPU_TIMES = 50.0
"""Taken for granted, not measured: a GPU does what grows with the sound so many times as fast as one core."""
GPU_CORES = 8
"""That read and write beside it."""
DAY, TB = 86_400.0, 1e12


@dataclass(frozen=True)
class Scale:
    """Of one task. Days but where it says otherwise; `limit` is what a cluster of one scheduler waits for."""

    core_years: float
    gpu: float
    gpu_limit: str
    array: float
    storage_gb_s: float
    cluster: float
    limit: str
    compute: float
    scheduler: float
    journal: float
    read_tb: float
    written_tb: float
    journal_tb: float


def scale(work: Work, costs: Costs, hours: float = HOURS, workers: int = WORKERS) -> Scale:
    sound_s = hours * 3600
    files = sound_s / FILE_S
    core_s = files * work.file_s + sound_s * work.sound_s
    array_s = core_s / workers + costs.start_s
    parts = {
        "compute": core_s / workers,
        "scheduler": max(core_s / WORK_S, files / MOST_FILES) * costs.bundle_s,
        "journal": files * costs.line_s,
    }
    limit = max(parts, key=parts.__getitem__)
    gpu = {"model": sound_s * work.sound_s / GPU_TIMES, "files": files * work.file_s / GPU_CORES}
    gpu_limit = max(gpu, key=gpu.__getitem__)
    return Scale(
        core_s / DAY / 365.25,
        gpu[gpu_limit] / DAY,
        gpu_limit,
        array_s / DAY,
        sound_s * (work.read + work.written) / array_s / 1e9,
        parts[limit] / DAY,
        limit,
        parts["compute"] / DAY,
        parts["scheduler"] / DAY,
        parts["journal"] / DAY,
        sound_s * work.read / TB,
        sound_s * work.written / TB,
        files * work.line / TB,
    )


def scale_rows(costs: Costs) -> list[Row]:
    """A row for each task."""
    found = {task: scale(work, costs) for task, work in costs.work.items()}
    return [
        {
            "task": task,
            "core years": one.core_years,
            "one GPU: days": one.gpu,
            "waits for": one.gpu_limit,
            "1,000 elements: days": one.array,
            "GB/s": one.storage_gb_s,
            "one scheduler: days": one.cluster,
            "waits for the": one.limit,
            "read TB": one.read_tb,
            "written TB": one.written_tb,
            "journal TB": one.journal_tb,
        }
        for task, one in found.items()
    ]


def part_rows(costs: Costs) -> list[Row]:
    """What each part of a batch on one scheduler would take by itself, in days."""
    found = {task: scale(work, costs) for task, work in costs.work.items()}
    return [
        {"task": task, "1,000 workers": one.compute, "scheduler": one.scheduler, "journal": one.journal}
        for task, one in found.items()
    ]


def planning_rows(costs: Costs) -> list[Row]:
    return [{"planning by one process": what, "value": value} for what, value in planning(costs).items()]


def planning(costs: Costs, hours: float = HOURS) -> dict[str, float]:
    """Of one process for all: hours until the first file is begun, hours to see that all is done, GB of memory."""
    files = hours * 3600 / FILE_S
    return {
        "headers, hours": files * costs.header_s / 3600,
        "look again, hours": files * costs.kept_s / 3600,
        "memory, GB": files * costs.planned / 1e9,
    }


def cost_rows(costs: Costs) -> list[Row]:
    """The inputs, with their units."""
    rows = []
    for task, work in costs.work.items():
        rows += [
            {"cost": f"{task}: compute for a second of sound", "value": 1e3 * work.sound_s, "unit": "ms"},
            {"cost": f"{task}: for each file beside it", "value": 1e3 * work.file_s, "unit": "ms"},
            {"cost": f"{task}: read for an hour of sound", "value": 3600 * work.read / 1e6, "unit": "MB"},
            {"cost": f"{task}: written for an hour of sound", "value": 3600 * work.written / 1e6, "unit": "MB"},
            {"cost": f"{task}: a line of the journal", "value": work.line, "unit": "bytes"},
            {"cost": f"{task}: a row from worker to client, pickled", "value": work.row, "unit": "bytes"},
        ]
    return [
        *rows,
        {"cost": "start of a worker, with its model", "value": costs.start_s, "unit": "s"},
        {"cost": "client and scheduler for a bundle", "value": 1e3 * costs.bundle_s, "unit": "ms"},
        {"cost": "a bundle's task, pickled", "value": costs.task, "unit": "bytes"},
        {"cost": "each job in it, pickled", "value": costs.job, "unit": "bytes"},
        {"cost": "rows that the journal takes", "value": 1 / costs.line_s, "unit": "a second"},
        {"cost": "planning a file: its header is read", "value": 1e3 * costs.header_s, "unit": "ms"},
        {"cost": "planning a file: memory", "value": costs.planned, "unit": "bytes"},
        {"cost": "a file that is done already", "value": 1e3 * costs.kept_s, "unit": "ms"},
        {"cost": "digest of a MB", "value": 1e3 * costs.digest_s, "unit": "ms"},
    ]
