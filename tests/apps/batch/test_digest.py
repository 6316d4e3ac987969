"""What decides on an output changes its fingerprint, and nothing else does."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from apps.batch import digest as module
from apps.batch.digest import digest, fingerprint, size_and_time
from hooks import AudioFileError
from steer.recipe import Recipe
from steer.recipe_edits import RECIPE_EDITS

EDITS = [{"ablate": [3]}, {"shift": "warm.safetensors#warm", "strength": 2.0}]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model, an SAE and a vector, as far as digests care."""
    return filled(tmp_path / "home")


def filled(folder: Path) -> Path:
    for name in ("model/model.safetensors", "model/config.json", "sae/cfg.json", "sae/vectors.safetensors", "other/x"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / "warm.safetensors").write_text("vectors")
    return folder


def recipe_in(folder: Path, **values: Any) -> Recipe:
    named: Mapping[str, Any] = {"model": "model", "saes": {"latent": "sae"}, "edits": EDITS}
    return Recipe.build({**named, **values}, folder=folder)


def test_a_digest_is_of_the_bytes(tmp_path: Path) -> None:
    for content in (b"", b"a", os.urandom(2**21 + 7)):
        (tmp_path / "a").write_bytes(content)
        assert digest(tmp_path / "a") == hashlib.blake2b(content, digest_size=16).hexdigest()


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(AudioFileError, match="none: cannot be read"):
        digest(tmp_path / "none")
    with pytest.raises(AudioFileError, match="none: no such file"):
        size_and_time(tmp_path / "none")
    with pytest.raises(AudioFileError, match="cannot be read"):
        digest(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(AudioFileError, match="cannot be read"):
        size_and_time(tmp_path / "file" / "inside")


@pytest.mark.parametrize(
    "values",
    [
        {"model": "other"},
        {"model": "starter:codec"},
        {"saes": {"latent": "other"}},
        {"saes": {"latent2": "sae"}},
        {"saes": {"latent": "sae", "latent2": "sae"}},
        {"goals": {"loudness": "+3dB"}},
        {"edits": []},
        {"edits": EDITS[:1]},
        {"edits": EDITS[::-1]},
        {"edits": [EDITS[0], {**EDITS[1], "strength": 2.5}]},
        {"edits": [EDITS[0], {**EDITS[1], "shift": "warm.safetensors#cold"}]},
        {"edits": [{"ablate": [3], "during": [[0, 1]]}, EDITS[1]]},
        {"edits": [{"ablate": [3], "site": "latent"}, EDITS[1]]},
        {"during": [[0, 1]]},
        {"residual": "keep"},
        {"limit": False},
        {"voice": {"pitch_range": 1.5}},
        {"padding": False},
        {"when": "gate.safetensors"},
    ],
    ids=str,
)
def test_every_key_of_a_recipe_counts(folder: Path, values: dict[str, Any]) -> None:
    assert fingerprint(recipe_in(folder, **values)) != fingerprint(recipe_in(folder))


def test_every_key_is_tried_above() -> None:
    keys = {"model", "saes", "goals", "edits", "voice", "during", "residual", "limit", "padding", "when"}
    assert set(Recipe.model_fields) == keys


@pytest.mark.parametrize("name", ["model/model.safetensors", "sae/vectors.safetensors", "warm.safetensors", "sae/new"])
def test_the_content_of_what_it_names_counts_also_where_the_path_stays(folder: Path, name: str) -> None:
    before = fingerprint(recipe_in(folder))
    (folder / name).write_text("trained for longer")
    assert fingerprint(recipe_in(folder)) != before


@pytest.mark.parametrize("kind", [kind for kind, edit in RECIPE_EDITS.items() if edit.vector])
def test_the_content_of_every_kind_of_vector_counts(folder: Path, kind: str) -> None:
    def now() -> str:
        return fingerprint(recipe_in(folder, edits=[{kind: "warm.safetensors"}]))

    before = now()
    (folder / "warm.safetensors").write_text("others")
    assert now() != before


def test_the_vectors_beside_an_sae_that_is_a_single_file_count(folder: Path) -> None:
    def now() -> str:
        return fingerprint(recipe_in(folder, saes={"latent": "sae/cfg.json"}))

    before = now()
    (folder / "sae" / "vectors.safetensors").write_text("others")
    assert now() != before


def test_where_it_lies_and_from_where_it_is_looked_at_does_not_count(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fingerprint(recipe_in(folder))
    elsewhere = filled(tmp_path / "elsewhere")
    assert fingerprint(recipe_in(elsewhere)) == before
    whole = {"model": str(folder / "model"), "saes": {"latent": str(folder / "sae")}}
    shift = {**EDITS[1], "shift": f"{folder}/warm.safetensors#warm"}
    assert fingerprint(recipe_in(elsewhere, **whole, edits=[EDITS[0], shift])) == before
    monkeypatch.chdir(folder)
    assert fingerprint(recipe_in(Path())) == before
    assert fingerprint(recipe_in(Path("..") / "home")) == before
    # as a command moves a recipe to the current folder before it adds options
    monkeypatch.chdir(tmp_path)
    assert fingerprint(Recipe.build(recipe_in(folder).to_dict(Path()))) == before


def test_options_and_other_files_count(folder: Path, tmp_path: Path) -> None:
    atlas = tmp_path / "atlas.json"
    atlas.write_text("{}")
    found = [
        fingerprint(None),
        fingerprint(None, "starter:asr"),
        fingerprint(None, "starter:other"),
        fingerprint(None, top=3),
        fingerprint(None, top=4),
        fingerprint(None, str(atlas)),
        fingerprint(recipe_in(folder), str(atlas)),
    ]
    atlas.write_text("{ }")
    found.append(fingerprint(None, str(atlas)))
    assert len(set(found)) == len(found)
    assert fingerprint(None, "") == fingerprint(None)


def test_a_model_is_read_once_for_many_recipes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def counted(path: Path) -> str:
        read.append(path)
        return digest(path)

    monkeypatch.setattr(module, "digest", counted)
    for strength in range(5):
        fingerprint(recipe_in(folder, edits=[{**EDITS[1], "strength": strength}]))
    assert len(read) == len(set(read)) == 5
