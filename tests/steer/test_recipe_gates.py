"""`when:` in recipes: what it says, where its file is found, and what it does to sound files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch

from apps.batch.digest import fingerprint
from steer import Ablate, Clamp, EditError, Gate, GateProbe, Recipe, SteeredModel, open_model
from steer.editing.editor import Editor
from steer.errors import RecipeError
from tests.tiny_codec import CONFIG, D_SAE

GATE = Gate(GateProbe(torch.tensor([[1.0, 2.0]]), -0.5, [3, 7], site="latent"), 0.25, "window")


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return GATE.save(tmp_path / "gate.safetensors")


def build(folder: Path, **values: Any) -> Recipe:
    return Recipe.build(values, folder=folder)


def test_a_file_or_a_block(gate: Path, tmp_path: Path) -> None:
    recipe = build(
        tmp_path,
        edits=[
            {"ablate": [3], "when": {"gate": "gate.safetensors", "threshold": -1, "scope": 2}},
            {"clamp": {1: 2.0}, "during": [0, 1]},
        ],
        when="gate.safetensors",
    )
    assert recipe.edits_for()["latent"] == [
        Ablate([3], when=Gate(GATE.probe, -1.0, 2.0)),
        Clamp([1], 2.0, during=(0, 1), when=GATE),
    ]
    assert [edit.get("when") for edit in recipe.to_dict()["edits"]] == [
        {"gate": "gate.safetensors", "threshold": -1.0, "scope": 2.0},
        None,
    ]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"when": 3}, "when: a gate is a file, or {gate: file"),
        ({"when": {"gat": "g"}}, "when: a gate is a file, or {gate: file"),
        ({"when": ""}, "when: a gate is a file"),
        ({"when": {"gate": "g", "scop": 2}}, "no key 'when.scop'; did you mean 'scope'"),
        (
            {"edits": [{"ablate": [1], "when": {"gate": "g", "tresh": 2}}]},
            "'edits.0.when.tresh'; did you mean 'threshold'",
        ),
        ({"when": {"gate": "g", "scope": "clips"}}, "when.scope: a gate's scope is clip, window or a number"),
        ({"when": {"gate": "g", "scope": 0}}, "when.scope: a gate's scope is clip, window or a number"),
        ({"when": {"gate": "g", "threshold": "x"}}, "when.threshold: .*number"),
        ({"when": "g", "goals": {"loudness": 2}}, "when: a gate is for edits; goals and voice take during"),
        ({"when": "g", "voice": {"pitch_range": 2}}, "when: a gate is for edits; goals and voice take during"),
    ],
)
def test_mistakes_are_told_in_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        Recipe.build(values)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_a_gate(tmp_path: Path) -> None:
    recipe = build(tmp_path, edits=[{"ablate": [3], "when": "none.safetensors"}])
    with pytest.raises(EditError, match=r"none\.safetensors: no such file of a gate"):
        recipe.edits_for()


def test_a_saved_recipe_finds_its_gate(gate: Path, tmp_path: Path) -> None:
    values = {"edits": [{"ablate": [3], "when": "gate.safetensors"}], "when": {"gate": "gate.safetensors", "scope": 1}}
    recipe = build(tmp_path, **values)
    (tmp_path / "deep").mkdir()
    for name in ("r.yaml", "r.json"):
        again = Recipe.load(recipe.save(tmp_path / "deep" / name))
        assert again.to_dict()["edits"][0]["when"] == "../gate.safetensors"
        assert again.to_dict()["when"] == {"gate": "../gate.safetensors", "scope": 1.0}
        assert again.edits_for() == recipe.edits_for()


def test_a_batch_does_again_what_another_gate_decides(gate: Path, tmp_path: Path) -> None:
    recipe = build(tmp_path, edits=[{"ablate": [3], "when": "gate.safetensors"}])
    before = fingerprint(recipe)
    copied = Path(gate.parent, "copy.safetensors")
    copied.write_bytes(gate.read_bytes())
    assert fingerprint(build(tmp_path, edits=[{"ablate": [3], "when": "copy.safetensors"}])) == before
    Gate(GATE.probe, 0.5).save(gate)
    assert fingerprint(recipe) != before
    assert fingerprint(build(tmp_path, edits=[{"ablate": [3]}], when="copy.safetensors")) != before


# --- sound files ---


@pytest.fixture
def pitch_gate(codec_folder: Path, tmp_path: Path) -> Callable[[float, Any], Path]:
    """A gate on the first coordinate of the tiny codec's latent, which is the level of the sound."""

    def save(threshold: float, scope: Any) -> Path:
        probe = GateProbe(torch.eye(CONFIG.dimension)[0], site="latent")
        return Gate(probe, threshold, scope).save(tmp_path / "level.safetensors")

    return save


@pytest.mark.parametrize("scope", ["clip", "window", 0.2])
@pytest.mark.parametrize("channels", [1, 2])
def test_files_are_edited_where_the_gate_is_open(
    scope: Any,
    channels: int,
    pitch_gate: Callable[[float, Any], Path],
    sound: Callable[..., Path],
    codec_folder: Path,
    sae_folder: Path,
    tmp_path: Path,
) -> None:
    source = sound("a.wav", 3.0, 16_000, channels)
    base = {"model": str(codec_folder), "saes": {"latent": str(sae_folder)}, "residual": "keep"}
    edit: dict[str, Any] = {"clamp": {"0": 0.7}}

    def edited(name: str, **when: Any) -> torch.Tensor:
        recipe = Recipe.build({**base, "edits": [{**edit, **when}]})
        # chunks of a second: a clip is longer than one
        Editor(recipe, chunk_s=1.0, pitch=False).edit_file(source, tmp_path / name)
        return torch.from_numpy(soundfile.read(tmp_path / name)[0])

    always = edited("always.wav")
    assert torch.equal(edited("open.wav", when=str(pitch_gate(-1e4, scope))), always)
    assert (tmp_path / "always.wav").read_bytes() != source.read_bytes()
    edited("shut.wav", when=str(pitch_gate(1e4, scope)))
    # nothing changed, so that the file is a copy
    assert (tmp_path / "shut.wav").read_bytes() == source.read_bytes()


def test_a_clip_is_decided_from_all_of_it(
    pitch_gate: Callable[[float, Any], Path],
    sound: Callable[..., Path],
    codec_folder: Path,
    sae_folder: Path,
    tmp_path: Path,
) -> None:
    """The file's level is in the middle of what its chunks are at: all of them are edited, or none."""
    source = sound("a.wav", 3.0)
    codec: Any = open_model(str(codec_folder))
    with torch.no_grad():
        z_TD = codec.encode(codec.prepare(source))[0]
    levels = [float(part[:, 0].mean()) for part in z_TD.split(75)]
    whole = float(z_TD[:, 0].mean())
    # a file is passed in pieces, of which the first and the last frames see less than in one pass
    assert min(levels) < whole - 0.03 and max(levels) > whole + 0.03
    for threshold, changed in ((whole - 0.025, True), (whole + 0.025, False)):
        path = pitch_gate(threshold, "clip")
        values = {"model": str(codec_folder), "saes": {"latent": str(sae_folder)}, "residual": "keep"}
        recipe = Recipe.build({**values, "edits": [{"clamp": {"0": 0.7}}], "when": str(path)})
        outcome = Editor(recipe, chunk_s=1.0, pitch=False).edit_file(source, tmp_path / f"{changed}.wav")
        assert outcome.unchanged != changed


def test_the_command(
    pitch_gate: Callable[[float, Any], Path],
    sound: Callable[..., Path],
    codec_folder: Path,
    sae_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from apps.cli import main

    source, path = sound("a.wav", 1.0), tmp_path / "r.json"
    for threshold, unchanged in ((1e4, True), (-1e4, False)):
        pitch_gate(threshold, "clip")
        edits = [{"clamp": {"0": 0.7}, "when": "level.safetensors"}]
        path.write_text(json.dumps({"model": str(codec_folder), "saes": {"latent": str(sae_folder)}, "edits": edits}))
        with pytest.raises(SystemExit) as left:
            main(["edit", str(source), "-o", str(tmp_path / "b.wav"), "--recipe", str(path), "--force"])
        assert not left.value.code
        assert ((tmp_path / "b.wav").read_bytes() == source.read_bytes()) == unchanged
    capsys.readouterr()
    path.write_text(path.read_text().replace("level.safetensors", "none.safetensors"))
    with pytest.raises(SystemExit) as left:
        main(["edit", str(source), "-o", str(tmp_path / "c.wav"), "--recipe", str(path)])
    told = capsys.readouterr().err
    assert left.value.code == 2 and "no such file of a gate" in told and told.count("\n") == 1
    assert not (tmp_path / "c.wav").exists()


def test_a_recipe_opens_what_its_gate_reads(gate: Path, codec_folder: Path, sae_folder: Path, tmp_path: Path) -> None:
    values = {"model": str(codec_folder), "saes": {"latent": str(sae_folder)}}
    recipe = build(tmp_path, **values, edits=[{"ablate": [3]}], when="gate.safetensors")
    steered = recipe.open()
    assert isinstance(steered, SteeredModel) and steered.saes["latent"].d_sae == D_SAE  # type: ignore[attr-defined]
    with steered.edit(recipe.edits_for(), padding=recipe.padding):
        steered.run(torch.zeros(1, 1, 24_000))
