"""Costs: each piece is measured on what it says, with a tiny codec."""

from __future__ import annotations

from pathlib import Path

import pytest

from apps.batch.edit_work import EditTask
from apps.batch.run import How
from benchmarks.batch.costs import kept_s, planned_bytes, traffic_s, work_of
from benchmarks.batch.kinds import Kind, loop_of_edits
from benchmarks.batch.made import write_voices
from steer.recipe import Recipe


@pytest.fixture
def kind(codec_folder: Path, sae_folder: Path) -> Kind:
    recipe = Recipe.build(
        {"model": str(codec_folder), "saes": {"latent": str(sae_folder)}, "edits": [{"clamp": {"0": 1.0}}]}
    )
    task = EditTask(recipe)
    return Kind(task, task.fingerprint(None), "", loop_of_edits(recipe), 0.3, 5.0, 8_000)


def test_work_is_of_the_file_and_of_its_sound(tmp_path: Path, kind: Kind) -> None:
    work = work_of("edit", kind, tmp_path, files=2, rounds=1)
    # 16 bits at 8 kHz, and a header
    assert work.read == pytest.approx(16_000, rel=0.01)
    assert work.written == pytest.approx(16_000, rel=0.01)
    # of such short sounds either may be lost in the other
    assert work.sound_s >= 0 and work.file_s >= 0 and work.sound_s + work.file_s > 0
    assert work.line > 300 and work.row > 200


def test_a_batch_is_planned_and_looked_at_again(tmp_path: Path, kind: Kind) -> None:
    folder, out = tmp_path / "sounds", tmp_path / "out"
    folder.mkdir()
    write_voices(folder, [0.1] * 8, 8_000)
    assert 100 < planned_bytes(kind, folder, out) / 8 < 10_000
    kind.batch(folder, out, How())
    jobs = kind.jobs(folder, out)
    assert 0 < kept_s(jobs, out, 1) < 1
    jobs[0].source.write_bytes(jobs[1].source.read_bytes())
    with pytest.raises(RuntimeError, match="to be done again"):
        kept_s(jobs, out, 1)


def test_traffic_is_processor_time_for_a_bundle(tmp_path: Path, kind: Kind) -> None:
    folder = tmp_path / "sounds"
    folder.mkdir()
    write_voices(folder, [0.1], 8_000)
    assert 0 < traffic_s(kind.jobs(folder, tmp_path / "out"), 3) < 1
