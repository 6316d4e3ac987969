"""Endurance: what grows is seen, noise is not taken for growth, and both runs sample what they say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.batch.endurance import (
    Sample,
    grown,
    hooks_on,
    long_file,
    many_edits,
    slope,
    verdict_of_edits,
    verdict_of_hours,
)
from hooks import AudioFileError
from steer.editing.editor import Editor
from steer.recipe import Recipe

FLAT = [Sample(100.0 * n, 10.0 * n, 500.0, 7 + n % 2, 0, 4) for n in range(30)]


@pytest.fixture
def recipe(codec_folder: Path, sae_folder: Path) -> Recipe:
    return Recipe.build(
        {"model": str(codec_folder), "saes": {"latent": str(sae_folder)}, "edits": [{"clamp": {"0": 1.0}}]}
    )


def test_the_slope_is_in_mb_for_each_edit() -> None:
    assert slope([replace(one, rss_mb=500 + 0.25 * one.done) for one in FLAT]) == pytest.approx(0.25)
    assert slope(FLAT[:1]) == 0


def test_what_comes_and_goes_has_not_grown_and_one_more_for_good_has() -> None:
    assert grown(FLAT) == []
    assert grown([replace(one, hooks=n // 10) for n, one in enumerate(FLAT)]) == ["hooks"]
    assert grown([replace(one, files=n, threads=n) for n, one in enumerate(FLAT)]) == ["files", "threads"]


def test_the_first_tenth_may_take_memory_and_the_rest_a_megabyte_for_a_thousand_edits() -> None:
    warm = [replace(one, rss_mb=100.0) for one in FLAT[:3]]
    steady, told = verdict_of_edits([*warm, *FLAT[3:]])
    assert steady
    assert "+0.000 MB per 1,000 edits" in told and "at most 500 MB" in told
    steady, told = verdict_of_edits([replace(one, rss_mb=500 + 0.002 * one.done) for one in FLAT])
    assert not steady
    assert "+2.000 MB" in told


def test_a_long_file_may_need_a_tenth_more_memory_than_a_short_one() -> None:
    assert verdict_of_hours(FLAT, [replace(one, rss_mb=549.0) for one in FLAT])[0]
    steady, told = verdict_of_hours(FLAT, [replace(one, rss_mb=600.0) for one in FLAT])
    assert not steady
    assert "1.200 times" in told


def test_many_edits_are_sampled_and_leave_no_hook(tmp_path: Path, recipe: Recipe) -> None:
    samples = many_edits(tmp_path, 6, 0.1, recipe)
    assert [sample.done for sample in samples] == [0, 1, 2, 3, 4, 5, 6]
    assert {sample.hooks for sample in samples} == {0}
    assert all(sample.rss_mb > 10 and sample.files > 0 and sample.threads > 0 for sample in samples)
    assert len(list((tmp_path / "out").rglob("*.wav"))) == 6


def test_edits_that_fail_are_no_measure(tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object, **options: object) -> None:
        raise AudioFileError("broken")

    monkeypatch.setattr(Editor, "edit", broken)
    with pytest.raises(RuntimeError, match="broken"):
        many_edits(tmp_path, 2, 0.1, recipe)


def test_a_long_file_is_sampled_up_to_its_end_and_taken_away(tmp_path: Path, recipe: Recipe) -> None:
    editor = Editor(recipe.model_copy(update={"residual": "drop"}), pitch=False)
    samples = long_file(tmp_path, 0.5, 8_000, editor)
    done = [sample.done for sample in samples]
    assert done[0] == 0 and done[-1] == pytest.approx(0.5, abs=0.02) and done == sorted(done)
    assert list(tmp_path.iterdir()) == []


def test_hooks_of_all_modules_are_counted() -> None:
    inner = torch.nn.Linear(1, 1)
    outer = torch.nn.Sequential(inner)
    outer.register_forward_hook(lambda *rest: None)
    inner.register_forward_pre_hook(lambda *rest: None)
    assert hooks_on(outer) == 2
