"""Transcribing as a task: lots in which files have recipes of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from apps.batch.jobs import Job
from apps.batch.transcribe_work import TranscribeTask
from apps.batch.worker import run
from hooks import Transcriber
from steer.errors import RecipeError
from steer.recipe import Recipe
from steer.sae import SAE, SAEInfo


@pytest.fixture
def folder(tmp_path: Path, listener: Transcriber, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An SAE whose feature i is axis i, and a sound that the listener hears "hello" in unless axis 1 is scaled up."""
    for where in ("steer.recipe", "apps.batch.transcribe_work"):
        monkeypatch.setattr(f"{where}.open_model", lambda name, device: listener)
    sae = SAE(4, 4, "relu", info=SAEInfo(model="listener", site="ear.0"))
    sae.W_dec.data.copy_(torch.eye(4))
    sae.W_enc.data.copy_(torch.eye(4))
    sae.save(tmp_path / "sae")
    soundfile.write(tmp_path / "a.wav", np.full(8000, -0.5), 16_000)
    return tmp_path


def scaled(folder: Path, factor: float) -> Recipe:
    return Recipe.build(
        {"model": "listener", "saes": {"ear.0": "sae"}, "edits": [{"scale": {1: factor}}]}, folder=folder
    )


def jobs_of(folder: Path, *recipes: Recipe | None) -> list[Job]:
    names = [f"{number}.txt" for number in range(len(recipes))]
    return [
        Job(folder / "a.wav", folder / "out" / name, name, None, own) for name, own in zip(names, recipes, strict=True)
    ]


def test_a_mixed_lot_gives_each_its_own(folder: Path) -> None:
    twice, once = scaled(folder, 2.0), scaled(folder, 1.0)
    jobs = jobs_of(folder, twice, None, once, twice, None)
    rows = list(run(TranscribeTask(None, "listener").open(), [jobs]))
    assert [row.result["text"] for row in rows] == ["", "hello", "hello", "", "hello"]
    assert [job.target.read_text() for job in jobs if job.target] == ["\n", "hello\n", "hello\n", "\n", "hello\n"]
    assert all(row.seconds == 0.5 and not row.error for row in rows)
    # those without one have the task's
    rows = list(run(TranscribeTask(twice, "listener").open(), [jobs]))
    assert [row.result["text"] for row in rows] == ["", "", "hello", "", ""]


def test_a_recipe_of_goals_is_refused(folder: Path) -> None:
    goals = Recipe.build({"model": "listener", "saes": {"ear.0": "sae"}, "goals": {"loudness": 3}}, folder=folder)
    with pytest.raises(RecipeError, match="goals .loudness. are for edited sounds"):
        TranscribeTask(goals, "listener").open()
    good, bad = run(TranscribeTask(None, "listener").open(), [jobs_of(folder, None, goals)])
    assert good.result["text"] == "hello" and "are for edited sounds" in bad.error


def test_fingerprints(folder: Path) -> None:
    prints = [
        TranscribeTask(None, "listener").fingerprint(None),
        TranscribeTask(None, "other").fingerprint(None),
        TranscribeTask(None, "listener", "de").fingerprint(None),
        TranscribeTask(None, "listener").fingerprint(scaled(folder, 1.0)),
        TranscribeTask(None, str(folder / "sae")).fingerprint(None),
    ]
    assert len(set(prints)) == len(prints)
    (folder / "sae" / "more").touch()  # a model in a folder is what the folder holds
    assert TranscribeTask(None, str(folder / "sae")).fingerprint(None) != prints[-1]
    assert TranscribeTask(scaled(folder, 2.0), "m").fingerprint(None) == TranscribeTask(None, "m").fingerprint(
        scaled(folder, 2.0)
    )
