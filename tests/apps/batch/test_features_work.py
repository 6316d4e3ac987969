"""Features as a task: files hold what is told of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file

from apps.batch.features_work import FeaturesTask
from apps.batch.jobs import Job
from apps.batch.worker import run
from apps.feature_lists import features_of
from hooks import read_clip
from steer.recipe import Recipe


def test_together_or_alone(codec_folder: Path, sae_folder: Path, sound: Callable[..., Path], tmp_path: Path) -> None:
    recipe = Recipe.build({"model": str(codec_folder), "saes": {"latent": str(sae_folder)}})
    sources = [sound("a.wav", 0.3), sound("b.wav", 0.2)]
    jobs = [Job(one, tmp_path / "deep" / one.stem, one.stem) for one in sources]
    worker = FeaturesTask(recipe, top=3).open()
    rows = list(run(worker, [[*jobs, Job(tmp_path / "none.wav", None, "none")]]))
    assert [bool(row.error) for row in rows] == [False, False, True]
    for row, job, source in zip(rows, jobs, sources, strict=False):
        assert job.target is not None
        saved = load_file(job.target)["latent"]
        torch.testing.assert_close(
            saved, features_of(worker.steered, read_clip(source))["latent"], rtol=1e-4, atol=1e-5
        )
        (told,) = row.result["lists"]
        assert (told["file"], told["site"]) == (str(source), "latent")
        assert [one["feature"] for one in told["features"]] == saved.mean(0).topk(3).indices.tolist()


def test_fingerprints_tell_an_atlas_by_what_it_holds(codec_folder: Path, sae_folder: Path, tmp_path: Path) -> None:
    recipe = Recipe.build({"model": str(codec_folder), "saes": {"latent": str(sae_folder)}})
    atlas = tmp_path / "atlas"
    atlas.write_text("1")
    prints = [FeaturesTask(recipe, top, name).fingerprint() for top in (3, 4) for name in ("", str(atlas))]
    atlas.write_text("22")
    assert len({*prints, FeaturesTask(recipe, 3, str(atlas)).fingerprint()}) == 5
