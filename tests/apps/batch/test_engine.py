"""Where the work is done makes no difference to what is done; workers that die, schedulers that are not there."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.batch import engine
from apps.batch.engine import MOST_FILES, WORK_S, Cluster, Here, Pace, bundles
from apps.batch.jobs import BatchError, Job, Row
from apps.batch.todo import Lot

# by a name that workers can import too: another package may have its own `tests`
sys.path.append(str(Path(__file__).parent))
upper = importlib.import_module("upper")
Upper, jobs_in = upper.Upper, upper.jobs_in


def lots_of(jobs: Sequence[Job], size: int = 1) -> list[Lot]:
    return [Lot(tuple(jobs[at : at + size]), 1.0) for at in range(0, len(jobs), size)]


def finished(rows: Iterator[Row]) -> dict[str, Row]:
    """By key, each once, without what differs from run to run."""
    found = [replace(row, took=0.0, wrote=(0, 0)) for row in rows]
    assert len({row.key for row in found}) == len(found)
    return {row.key: row for row in found}


SIZES = st.lists(st.tuples(st.integers(1, 6), st.sampled_from([0.0, 1.0, 5.0, 70.0])))


@given(SIZES, st.integers(1, 8), st.floats(1, 50))
def test_bundles(sizes: list[tuple[int, float]], files: int, seconds: float) -> None:
    lots = [Lot(tuple(Job(Path(f"{n}-{i}")) for i in range(size)), length) for n, (size, length) in enumerate(sizes)]
    found = list(bundles(lots, Pace(files, seconds), parts=1))
    assert [lot for bundle in found for lot in bundle] == lots
    for number, bundle in enumerate(found):
        assert bundle
        held = sum(len(lot.jobs) for lot in bundle), sum(lot.seconds for lot in bundle)
        assert len(bundle) == 1 or (held[0] <= files and held[1] <= seconds)
        if number + 1 < len(found):  # none is sent half full
            after = found[number + 1][0]
            assert held[0] + len(after.jobs) > files or held[1] + after.seconds > seconds


def test_here_a_lot_is_noted_before_it_is_read(tmp_path: Path) -> None:
    jobs = jobs_in(tmp_path, dict.fromkeys("abcd", "x"))
    began: list[str] = []
    for row in Here(Upper().open()).run(Upper(), lots_of(jobs, 2), lambda some: began.extend(job.key for job in some)):
        assert row.key in began
    assert began == [*"abcd"]


# --- Dask: one cluster for all, whose workers are replaced as they die ---


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of a scheduler with two workers that gives up on what one worker died of."""
    dask = pytest.importorskip("dask")
    distributed = pytest.importorskip("distributed")
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=100
        ) as cluster,
    ):
        yield cluster.scheduler_address


def test_rows_of_a_cluster_are_those_of_this_process(address: str, tmp_path: Path, monkeypatch: Any) -> None:
    texts = {"deep/a": "one", "b": "bad read", "c": "bad work", "d": "bad keep", "e": "two", "f": "three"}
    here = finished(Here(Upper().open()).run(Upper(), lots_of(jobs_in(tmp_path / "1", texts), 2), lambda jobs: None))
    began: list[str] = []
    there = finished(
        Cluster(address=address, files=2).run(
            Upper(), lots_of(jobs_in(tmp_path / "2", texts), 2), lambda jobs: began.extend(job.key for job in jobs)
        )
    )

    def as_in_2(row: Row) -> Row:
        source = row.source.replace(str(tmp_path / "1"), str(tmp_path / "2"))
        return replace(row, source=source, read=there[row.key].read)

    assert there == {key: as_in_2(row) for key, row in here.items()} and sorted(began) == sorted(texts)
    for name, text in (("deep/a", "ONE"), ("e", "TWO"), ("f", "THREE")):
        assert (tmp_path / "2" / "out" / name).read_text() == text
    # paths relative to this process's folder; and one line for what a worker cannot open
    monkeypatch.chdir(tmp_path / "2")
    (job,) = (Job(Path("in/e"), Path("out/new"), "new") for _ in range(1))
    assert not finished(Cluster(address=address).run(Upper(), lots_of([job]), lambda jobs: None))["new"].error
    with pytest.raises(BatchError, match="^a worker cannot do this: no such model$"):
        list(Cluster(address=address).run(Upper("no such model"), lots_of([job]), lambda jobs: None))


def test_a_file_that_takes_workers_down_is_a_row_and_all_others_are_done(address: str, tmp_path: Path) -> None:
    """Beside it one that a worker died on once, as if it was killed from outside."""
    texts = {"unlucky": f"die once {tmp_path / 'mark'}", **dict.fromkeys("abcdef", "x"), "killer": "die"}
    rows = finished(
        Cluster(address=address, files=3).run(Upper(), lots_of(jobs_in(tmp_path, texts)), lambda jobs: None)
    )
    killer = rows.pop("killer")
    assert killer.error == f"{tmp_path / 'in' / 'killer'}: takes down every worker that works on it " + (
        "(a crash in a library, or too little memory)"
    )
    assert killer.recipe == "capitals" and not killer.output
    assert sorted(rows) == ["a", "b", "c", "d", "e", "f", "unlucky"] and not any(row.error for row in rows.values())
    assert (tmp_path / "mark").exists() and not (tmp_path / "out" / "killer").exists()


def test_workers_without_this_audiosteer_are_told_of_and_not_waited_for(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "__name__", "no_such_module")
    with pytest.raises(BatchError, match="a worker lacks this AudioSteer .*no_such_module"):
        list(Cluster(address=address).run(Upper(), [], lambda jobs: None))


@pytest.mark.parametrize("where", ["tcp://127.0.0.1:9", "nonsense://x", "127.0.0.1:no"])
def test_no_scheduler_is_an_error_soon(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "CONNECT_S", 1)
    start = time.monotonic()
    with pytest.raises(BatchError, match=f"--cluster {where}: no scheduler with workers answers"):
        list(Cluster(address=where).run(Upper(), [], lambda jobs: None))
    assert time.monotonic() - start < 10


# --- bundles, towards the end ---


def lots_of_lengths(lengths: list[float], files: int = 1) -> list[Lot]:
    return [Lot(tuple(Job(Path(f"{n}-{m}.wav")) for m in range(files)), s) for n, s in enumerate(lengths)]


def seconds_of(found: list[list[Lot]]) -> list[list[float]]:
    return [[lot.seconds for lot in bundle] for bundle in found]


def test_bundles_are_full_while_much_is_left_and_get_smaller_towards_the_end() -> None:
    lots = lots_of_lengths([1.0] * 64)
    found = list(bundles(lots, Pace(8, 60.0), parts=4))
    sizes = [len(bundle) for bundle in found]
    assert sizes[:5] == [8] * 5
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] == 1
    assert [lot for bundle in found for lot in bundle] == lots


def test_long_sounds_fill_a_bundle_by_their_seconds() -> None:
    found = list(bundles(lots_of_lengths([30.0, 25.0, 20.0, 1.0, 1.0]), Pace(16, 60.0), parts=1))
    assert seconds_of(found) == [[30.0, 25.0], [20.0, 1.0, 1.0]]


def test_two_workers_get_alike_shares_of_few_files() -> None:
    lengths = [5.0 * 0.95**n for n in range(64)]
    found = seconds_of(list(bundles(lots_of_lengths(lengths), Pace(16, 60.0), parts=6)))
    busy = [0.0, 0.0]
    for bundle in found:
        busy[busy.index(min(busy))] += sum(bundle)
    assert max(busy) < 1.05 * sum(lengths) / 2


def test_a_lot_is_not_torn_and_sounds_of_unknown_length_count_as_files() -> None:
    assert [len(bundle) for bundle in bundles(lots_of_lengths([90.0, 90.0], files=8), Pace(16, 60.0), 6)] == [1, 1]
    assert [len(bundle) for bundle in bundles(lots_of_lengths([0.0] * 4), Pace(2, 60.0), 1)] == [2, 2]
    assert list(bundles([], Pace(2, 60.0), 1)) == []


def test_bundles_become_what_takes_ten_seconds() -> None:
    pace = Pace(16, 60.0)
    asked = bundles(lots_of_lengths([2.0] * 5000), pace, parts=1)
    assert len(next(asked)) == 16
    for _ in range(100):
        pace.note(Row("a", "a", seconds=2.0, took=0.5))
    assert (pace.files, pace.seconds) == (pytest.approx(WORK_S / 0.5), pytest.approx(WORK_S / 0.5 * 2.0))
    assert len(next(asked)) == 20
    # it follows, and has an upper limit
    for _ in range(10_000):
        pace.note(Row("a", "a", seconds=2.0, took=0.01))
    assert pace.files == MOST_FILES and len(next(asked)) == MOST_FILES
    # one that takes longer than all is a bundle of its own
    pace.note(Row("a", "a", seconds=3600.0, took=400.0))
    assert len(next(asked)) == 1
