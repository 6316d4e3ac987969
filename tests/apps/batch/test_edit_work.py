"""Editing as a task: one model for many recipes, each file by its own."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import soundfile

from apps.batch import edit_work
from apps.batch.edit_work import EditTask, EditWorker
from apps.batch.jobs import Job
from apps.batch.worker import run
from hooks import ModelError
from hooks.model import AudioModel
from steer.editing.editor import Editor
from steer.recipe import Recipe

Write = Callable[..., Path]


def recipe(codec: Path, sae: Path, **values: Any) -> Recipe:
    return Recipe.build({"model": str(codec), "saes": {"latent": str(sae)}, **values})


def clamped(codec: Path, sae: Path, value: float) -> Recipe:
    return recipe(codec, sae, edits=[{"clamp": {0: value}}])


@pytest.fixture
def opens(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models that were opened."""
    names: list[str] = []
    before = Recipe.open

    def counted(recipe: Recipe, device: str = "cpu") -> Any:
        names.append(recipe.model)
        return before(recipe, device)

    monkeypatch.setattr(Recipe, "open", counted)
    return names


def test_each_file_by_its_own_recipe_and_one_model(
    codec_folder: Path, sae_folder: Path, sound: Write, tmp_path: Path, opens: list[str]
) -> None:
    mine, louder, none = (clamped(codec_folder, sae_folder, value) for value in (0.5, 1.0, 0.5))
    source = sound("a.wav", 0.3)
    jobs = [
        Job(source, tmp_path / "out" / f"{name}.wav", name, None, own)
        for name, own in (("task's", None), ("louder", louder), ("equal", none))
    ]
    rows = {row.key: row for row in run(EditTask(mine).open(), [jobs])}
    assert not any(row.error for row in rows.values()) and opens == [str(codec_folder)]
    alone = Editor(louder, pitch=False).edit_file(source, tmp_path / "alone.wav")
    assert rows["louder"].result == {**alone.to_dict(), "target": str(jobs[1].target)}
    written = [(tmp_path / "out" / f"{name}.wav").read_bytes() for name in ("task's", "louder", "equal")]
    assert written[1] == (tmp_path / "alone.wav").read_bytes()
    assert written[0] == written[2] != written[1]
    assert rows["louder"].result["measured"]["pitch"] is None


def test_what_is_wrong_with_the_recipe_is_told_before_any_file(sae_folder: Path, codec_folder: Path) -> None:
    with pytest.raises(ModelError):
        EditTask(recipe(Path("no such model"), sae_folder)).open()
    with pytest.raises(Exception, match="480"):
        EditTask(recipe(codec_folder, sae_folder, edits=[{"ablate": [480]}])).open()


def test_what_is_wrong_with_a_files_own_recipe_is_its_row(
    codec_folder: Path, sae_folder: Path, sound: Write, tmp_path: Path
) -> None:
    bad, source = recipe(codec_folder, sae_folder, edits=[{"ablate": [480]}]), sound("a.wav", 0.2)
    jobs = [Job(source, tmp_path / f"{n}.wav", str(n), None, own) for n, own in enumerate((None, bad))]
    good, failed = run(EditTask(clamped(codec_folder, sae_folder, 1.0)).open(), [jobs])
    assert not good.error and "480" in failed.error and not (tmp_path / "1.wav").exists()


def test_recipes_of_two_folders_that_say_the_same(codec_folder: Path, sae_folder: Path, tmp_path: Path) -> None:
    """One of them names another SAE by the same words."""
    for name, target in (("1", sae_folder), ("2", sae_folder.parent)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "sae").symlink_to(target)
    values = {"model": str(codec_folder), "saes": {"latent": "sae"}}
    first, second = (Recipe.build(values, folder=tmp_path / name) for name in "12")
    worker = EditTask(first).open()
    assert worker.editor(Recipe.build(values, folder=tmp_path / "1")) is worker.editor(None)
    with pytest.raises(Exception, match="cfg.json"):  # there is no SAE in that folder
        worker.editor(second)


def test_many_recipes_and_threads_keep_few_editors(
    codec_folder: Path, sae_folder: Path, monkeypatch: pytest.MonkeyPatch, opens: list[str]
) -> None:
    monkeypatch.setattr(edit_work, "EDITORS", 2)
    recipes = [clamped(codec_folder, sae_folder, value) for value in range(5)]
    worker = EditWorker(EditTask(recipes[0]))
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(worker.editor, recipes * 8))
    assert [editor.recipe for editor in found] == recipes * 8
    assert len(worker._editors) == 2 and opens == [str(codec_folder)]


def test_a_task_travels(codec_folder: Path, sae_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one whose recipe names files relative to here."""
    (tmp_path / "sae").symlink_to(sae_folder)
    monkeypatch.chdir(tmp_path)
    task = EditTask(recipe(codec_folder, Path("sae"), edits=[{"ablate": [3]}]), pitch=True)
    sent = pickle.dumps(task)
    monkeypatch.chdir("/")
    came = pickle.loads(sent)
    assert (came.recipe.to_dict(), came.pitch) == (task.recipe.to_dict(), True)
    assert isinstance(came.open().editor(None).codec, AudioModel)
    monkeypatch.chdir(tmp_path)
    assert came.fingerprint(None) == task.fingerprint(None)


def test_fingerprints(codec_folder: Path, sae_folder: Path) -> None:
    mine, other = clamped(codec_folder, sae_folder, 0.5), clamped(codec_folder, sae_folder, 1.0)
    task = EditTask(mine)
    prints = [task.fingerprint(None), EditTask(mine, True).fingerprint(None), task.fingerprint(other)]
    assert len(set(prints)) == 3
    assert EditTask(other).fingerprint(mine) == EditTask(mine).fingerprint(None)


def test_a_picture_that_fails_leaves_the_sound(
    codec_folder: Path, sae_folder: Path, sound: Write, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "file").touch()
    job = Job(sound("a.wav", 0.2), tmp_path / "b.wav", "b.wav", tmp_path / "file" / "b.png")
    (row,) = run(EditTask(clamped(codec_folder, sae_folder, 1.0)).open(), [[job]])
    assert "the folder cannot be made" in row.error and row.output
    assert soundfile.info(tmp_path / "b.wav").duration == pytest.approx(0.2)
