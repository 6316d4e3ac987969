"""The plan on paper: its arithmetic, on round numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.batch.costs import Costs, Work
from benchmarks.batch.scale import GPU_TIMES, cost_rows, part_rows, planning, planning_rows, scale, scale_rows

WORK = Work(sound_s=0.01, file_s=0.1, read=32_000.0, written=16_000.0, line=500.0, row=400.0)
COSTS = Costs(
    {"edit": WORK},
    start_s=10.0,
    bundle_s=0.006,
    task=600.0,
    job=200.0,
    line_s=1e-4,
    header_s=1e-3,
    planned=1000.0,
    kept_s=1e-4,
    digest_s=2e-3,
)
HOURS = 1000.0
"""In 360,000 files of 10 s: 72,000 core seconds."""


def test_core_time_is_of_files_and_of_sound() -> None:
    found = scale(WORK, COSTS, HOURS, workers=100)
    assert found.core_years == pytest.approx(72_000 / 86_400 / 365.25)
    assert found.array == pytest.approx((720 + 10) / 86_400)
    assert found.compute == pytest.approx(720 / 86_400)


def test_one_scheduler_waits_for_the_slowest() -> None:
    few = scale(WORK, COSTS, HOURS, workers=100)
    # 7,200 bundles of ten seconds of work take it 43.2 s
    assert (few.limit, few.scheduler) == ("compute", pytest.approx(43.2 / 86_400))
    many = scale(WORK, COSTS, HOURS, workers=10_000)
    assert (many.limit, many.cluster) == ("scheduler", few.scheduler)
    # a bundle holds no more than 256 files, however little they take
    quick = scale(replace(WORK, sound_s=1e-6, file_s=1e-6), COSTS, HOURS, workers=100)
    assert quick.scheduler == pytest.approx(360_000 / 256 * 0.006 / 86_400)
    slow = scale(WORK, replace(COSTS, line_s=0.01), HOURS, workers=1000)
    assert (slow.limit, slow.cluster) == ("journal", pytest.approx(3600 / 86_400))


def test_storage_is_what_is_read_and_written_in_the_time_of_the_array() -> None:
    found = scale(WORK, COSTS, HOURS, workers=100)
    assert found.storage_gb_s == pytest.approx(3.6e6 * 48_000 / 730 / 1e9)
    assert (found.read_tb, found.written_tb) == (pytest.approx(0.1152), pytest.approx(0.0576))
    assert found.journal_tb == pytest.approx(360_000 * 500 / 1e12)


def test_a_gpu_waits_for_files_where_these_take_longer_than_the_model() -> None:
    found = scale(WORK, COSTS, HOURS)
    assert (found.gpu_limit, found.gpu) == ("files", pytest.approx(36_000 / 8 / 86_400))
    model = scale(replace(WORK, file_s=0.0), COSTS, HOURS)
    assert (model.gpu_limit, model.gpu) == ("model", pytest.approx(36_000 / GPU_TIMES / 86_400))


def test_planning_is_one_file_after_another() -> None:
    told = planning(COSTS, HOURS)
    assert told == {
        "headers, hours": pytest.approx(0.1),
        "look again, hours": pytest.approx(0.01),
        "memory, GB": pytest.approx(0.36),
    }


def test_tables_have_a_row_for_each_task_and_each_cost() -> None:
    (row,) = scale_rows(COSTS)
    assert row["task"] == "edit" and row["waits for the"] == "compute"
    assert row["one scheduler: days"] == part_rows(COSTS)[0]["1,000 workers"]
    assert [row["value"] for row in planning_rows(COSTS)] == list(planning(COSTS).values())
    values = {row["cost"]: (row["value"], row["unit"]) for row in cost_rows(COSTS)}
    assert values["edit: compute for a second of sound"] == (pytest.approx(10.0), "ms")
    assert values["edit: read for an hour of sound"] == (pytest.approx(115.2), "MB")
    assert values["rows that the journal takes"] == (pytest.approx(10_000), "a second")
