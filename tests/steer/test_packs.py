"""Recipes packed into one file: they do the same without the SAE, and damaged files are refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from apps.batch.digest import fingerprint
from hooks import Site
from hooks.model import AudioModel
from steer import SAE, ControlVector, Gate, GateProbe, Recipe, load_vector, save_vectors, starter
from steer.errors import AudioSteerError, EditError, RecipeError, SAEError
from steer.packs import load_pack
from steer.recipe_pack import pack_recipe

WIDTH, D_SAE = 12, 200
FEATURES = [3, 17, 150]
ACTIVATIONS = ["relu", "jumprelu", "batchtopk", "gated"]


@pytest.fixture
def folder(tmp_path: Path, random_sae: Callable[..., SAE]) -> Callable[..., Path]:
    """A folder with an SAE, its vectors (one of few features, one of all), and gates."""

    def make(activation: str = "relu", **options: Any) -> Path:
        sae = random_sae(activation, WIDTH, D_SAE, **options)
        sae.info.site, sae.info.model = "here", "whisper:tiny"
        sae.save(tmp_path / "sae")
        few = torch.zeros(D_SAE)
        few[[17, 99]] = torch.tensor([0.5, -2.0])
        every = torch.randn(D_SAE, generator=torch.Generator().manual_seed(2))
        vectors = {"few": ControlVector(few, "few", "1 dB"), "every": ControlVector(every, "every")}
        save_vectors(vectors, tmp_path / "vectors.safetensors")
        lower = ControlVector(-torch.arange(WIDTH) / 10, "lower", "", "", "whisper:tiny")
        higher = ControlVector(torch.ones(WIDTH), "higher", "", "here", "whisper:tiny")
        save_vectors({"higher": higher}, tmp_path / "directions.safetensors")
        save_vectors({"lower": lower}, tmp_path / "lower.safetensors")
        weights = torch.tensor([[1.0, -2.0], [0.0, 1.0]])
        probe = GateProbe(weights, 0.1, [150, 7], ("mean", "log_max"), "here", "whisper:tiny")
        Gate(probe, 0.2, "window").save(tmp_path / "gate.safetensors")
        Gate(GateProbe(torch.ones(WIDTH), site="here"), -0.5, 0.1).save(tmp_path / "raw.safetensors")
        return tmp_path

    return make


EDITS: dict[str, list[dict[str, Any]]] = {
    "features": [{"ablate": [17, 3]}, {"scale": {"150": 2.0, "3": [[0, 1], [1, 3]]}}, {"clamp": {"5": 1.5}}],
    "few": [{"shift": "vectors.safetensors#few", "strength": 3.0}],
    "every": [{"shift": "vectors.safetensors#every", "strength": 0.5}],
    "mixed": [
        {"shift": "vectors.safetensors#every", "strength": [[0, 0.1], [1, 0.9]]},
        {"ablate": [3]},
        {"shift": "vectors.safetensors#every", "strength": -0.2, "during": [0.1, 0.5]},
        {"shift": "vectors.safetensors#few"},
    ],
    "directions": [
        {"add_direction": "directions.safetensors", "strength": 2.0, "keep_norm": True},
        {"add_direction": "lower.safetensors", "site": "here", "during": [0.2, 0.4]},
        {"ablate": [3], "site": "here"},
    ],
    "gated": [
        {"ablate": [3], "when": "gate.safetensors"},
        {"clamp": {"17": 1.0}, "when": {"gate": "gate.safetensors", "threshold": -9, "scope": "clip"}},
        {"shift": "vectors.safetensors#every", "when": "raw.safetensors"},
    ],
}


def recipe_of(folder: Path, edits: list[dict[str, Any]], **more: Any) -> Recipe:
    values = {"model": "whisper:tiny", "saes": {"here": "sae"}, "edits": edits, **more}
    return Recipe.build(values, folder=folder)


def applied(recipe: Recipe) -> Tensor:
    """What a recipe makes of activations, with the SAEs that it names."""
    model = AudioModel(
        torch.nn.Sequential(torch.nn.Unflatten(2, (-1, WIDTH)), torch.nn.Flatten(1, 2), torch.nn.Identity()),
        [Site("here", "2", width=WIDTH, frame_rate=50.0)],
        name="whisper:tiny",
        sample_rate=600,
    )
    steered = recipe.open(model=model)
    audio_BCN = torch.randn(3, 1, 600, generator=torch.Generator().manual_seed(9))
    with steered.edit(recipe.edits_for(), padding=recipe.padding):
        return steered.run(audio_BCN)


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_pack_does_the_same(name: str, activation: str, folder: Callable[..., Path], tmp_path: Path) -> None:
    recipe = recipe_of(folder(activation), EDITS[name])
    (tmp_path / "out").mkdir()
    path = tmp_path / "out" / "r.safetensors"
    pack_recipe(recipe, path)
    expected, plain = applied(recipe), applied(recipe_of(tmp_path, []))
    for one in tmp_path.glob("*.safetensors"):
        one.unlink()
    (tmp_path / "sae").rename(tmp_path / "gone")
    found = applied(Recipe.load(path))
    assert not torch.equal(expected, plain)
    if name in ("features", "few", "directions"):
        assert torch.equal(found, expected)
    else:  # a sum over features is made beforehand
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(
    "options", [{"normalize": "layer_norm"}, {"center": False}, {"normalize": "constant_norm_rescale"}]
)
@pytest.mark.parametrize("name", ["features", "mixed"])
def test_saes_that_normalize(name: str, options: dict[str, Any], folder: Callable[..., Path], tmp_path: Path) -> None:
    recipe = recipe_of(folder("jumprelu", **options), EDITS[name])
    pack_recipe(recipe, tmp_path / "r.safetensors")
    torch.testing.assert_close(applied(Recipe.load(tmp_path / "r.safetensors")), applied(recipe), atol=1e-4, rtol=1e-5)


def test_only_what_is_touched_is_in_it(folder: Callable[..., Path], tmp_path: Path) -> None:
    recipe = recipe_of(folder("batchtopk"), [{"ablate": [150, 3]}, {"clamp": {"17": 1.0}}, *EDITS["every"]])
    pack = pack_recipe(recipe, tmp_path / "r.safetensors", {"clips with words": "57 of 62 -> 0", "WER": 4.2})
    assert pack.saes["here"].info.extra["features"] == [3, 17, 150]
    assert [name for name in load_file(tmp_path / "r.safetensors") if name.startswith("sae")] == [
        f"sae.here.{name}" for name in ("W_dec", "W_enc", "b_dec", "b_enc", "threshold")
    ]
    read = load_pack(tmp_path / "r.safetensors")
    sae, whole = read.saes["here"], SAE.load(tmp_path / "sae")
    assert (sae.d_sae, sae.d_in, sae.activation) == (4, WIDTH, "batchtopk")
    for kept, all_ in ((sae.W_dec, whole.W_dec), (sae.W_enc.T, whole.W_enc.T), (sae.threshold, whole.threshold)):
        assert torch.equal(kept[:3], all_[FEATURES])
    assert read.effect == {"clips with words": "57 of 62 -> 0", "WER": 4.2}
    assert (sae.info.model, sae.info.site, sae.info.extra["of"]) == ("whisper:tiny", "here", D_SAE)
    assert (
        (tmp_path / "r.safetensors").stat().st_size
        < 6000
        < (tmp_path / "sae" / "sae_weights.safetensors").stat().st_size
    )


def test_directions_and_gates_on_the_activation_need_no_sae(folder: Callable[..., Path], tmp_path: Path) -> None:
    folder("topk")  # which could not be packed
    edits = [{"add_direction": "directions.safetensors", "when": "raw.safetensors"}]
    recipe = Recipe.build({"model": "whisper:tiny", "edits": edits}, folder=tmp_path)
    expected = applied(recipe)
    pack = pack_recipe(recipe, tmp_path / "r.safetensors")
    assert not pack.saes and (tmp_path / "r.safetensors").stat().st_size < 2000
    for name in ("directions", "raw"):
        (tmp_path / f"{name}.safetensors").unlink()
    assert torch.equal(applied(Recipe.load(tmp_path / "r.safetensors")), expected)


def test_what_it_names_travels(folder: Callable[..., Path], tmp_path: Path) -> None:
    """A pack is moved and named in options like any recipe: its parts are found beside no other file."""
    recipe = recipe_of(folder(), EDITS["gated"], padding=False)
    pack_recipe(recipe, tmp_path / "r.safetensors")
    expected = applied(recipe)
    (tmp_path / "elsewhere").mkdir()
    moved = (tmp_path / "r.safetensors").rename(tmp_path / "elsewhere" / "moved.safetensors")
    read = Recipe.load(moved)
    assert read.saes == {"here": "moved.safetensors#here"} and not read.padding
    torch.testing.assert_close(applied(read), expected, atol=1e-4, rtol=1e-5)
    again = Recipe.load(read.save(tmp_path / "r.yaml"))
    assert again.saes == {"here": "elsewhere/moved.safetensors#here"}
    assert again.to_dict()["edits"][0]["when"] == "elsewhere/moved.safetensors#gate0"
    assert torch.equal(applied(again), applied(read))
    built = Recipe.build(read.to_dict(Path()), folder=Path.cwd())  # as the commands do with their options
    assert torch.equal(applied(built), applied(read))
    before = fingerprint(read)
    moved.write_bytes(moved.read_bytes() + b" ")
    assert fingerprint(read) != before


def test_files_of_this_machine_get_the_model_s_published_name(folder: Callable[..., Path], tmp_path: Path) -> None:
    place = folder()
    probe = GateProbe(torch.ones(WIDTH), site="here", model=f"whisper:{place}/tiny.pt")
    Gate(probe).save(place / "raw.safetensors")
    pack = pack_recipe(recipe_of(place, EDITS["gated"]), tmp_path / "p.safetensors")
    assert {gate.probe.model for gate in pack.gates.values()} == {"whisper:tiny"}
    assert str(place).encode() not in (tmp_path / "p.safetensors").read_bytes()


def test_parts_by_their_names(folder: Callable[..., Path], tmp_path: Path) -> None:
    pack_recipe(recipe_of(folder(), EDITS["gated"]), tmp_path / "r.safetensors")
    source = f"{tmp_path}/r.safetensors"
    assert SAE.load(f"{source}#here").info.extra["features"] == [3, 7, 17, 150]
    assert Gate.load(f"{source}#gate0").probe.features == (3, 1)
    assert Gate.load(f"{source}#gate2").probe.features is None
    assert len(load_vector(f"{source}#vector0").vector) == 5
    with pytest.raises(SAEError, match="has no SAE at 'there'"):
        SAE.load(f"{source}#there")
    with pytest.raises(EditError, match="not a gate that can be opened"):
        Gate.load(f"{source}#gate9")
    with pytest.raises(EditError, match="holds vector0"):
        load_vector(f"{source}#warm")


def test_what_cannot_be_packed(folder: Callable[..., Path], tmp_path: Path) -> None:
    def refused(error: type[AudioSteerError], message: str, edits: list[dict[str, Any]], **more: Any) -> None:
        with pytest.raises(error, match=message) as caught:
            pack_recipe(recipe_of(tmp_path, edits, **more), tmp_path / "r.safetensors")
        assert "\n" not in str(caught.value)
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(("r.safetensors", ".r."))]

    ablate = [{"ablate": [3]}]
    folder("topk")
    refused(RecipeError, "sae: its features of topk depend on each other", ablate)
    folder("relu", rms_norm=True)
    refused(RecipeError, "are RMS-normalised together", ablate)
    folder("relu")
    refused(RecipeError, "has no edits to pack", [])
    refused(RecipeError, "goals and voice need", ablate, goals={"loudness": 3})
    refused(EditError, "there is no feature 200", [{"ablate": [200]}])
    Gate(GateProbe(torch.ones(1, 1), 0.0, [2], site="there")).save(tmp_path / "there.safetensors")
    refused(RecipeError, "there is no SAE at 'there' to pack", [{"ablate": [3], "when": "there.safetensors"}])
    refused(EditError, "no such file of a gate", [{"ablate": [3], "when": "none.safetensors"}])
    with pytest.raises(RecipeError, match=r"ends in \.safetensors"):
        pack_recipe(recipe_of(tmp_path, ablate), tmp_path / "r.yaml")
    pack_recipe(recipe_of(tmp_path, ablate), tmp_path / "r.safetensors")
    with pytest.raises(RecipeError, match="exists already; use --force"):
        pack_recipe(recipe_of(tmp_path, ablate), tmp_path / "r.safetensors")
    pack_recipe(recipe_of(tmp_path, ablate), tmp_path / "r.safetensors", force=True)


def test_damaged_packs(folder: Callable[..., Path], tmp_path: Path) -> None:
    path = tmp_path / "r.safetensors"
    pack_recipe(recipe_of(folder("jumprelu"), EDITS["gated"]), path)
    tensors = load_file(path)
    with safe_open(str(path), "pt") as file:
        about = {key: json.loads(value) for key, value in file.metadata().items()}
    pack = about["pack"]

    def saved(state: dict[str, Tensor] = tensors, **said: Any) -> None:
        save_file(state, path, {key: json.dumps(value) for key, value in (about | said).items()})

    saved()
    Recipe.load(path)
    saes, gates = pack["saes"], pack["gates"]
    for name, make in {
        "no recipe": lambda: saved(pack={key: value for key, value in pack.items() if key != "recipe"}),
        "version": lambda: saved(pack={**pack, "version": 2}),
        "text": lambda: saved(pack="recipe"),
        "list": lambda: saved(pack={**pack, "recipe": [1]}),
        "key": lambda: saved(pack={**pack, "recipe": {**pack["recipe"], "gaols": 3}}),
        "activation": lambda: saved(pack={**pack, "saes": {"here": {**saes["here"], "activation": "topk"}}}),
        "no activation": lambda: saved(pack={**pack, "saes": {"here": {**saes["here"], "activation": "x"}}}),
        "info": lambda: saved(pack={**pack, "saes": {"here": {**saes["here"], "info": {"site": 3}}}}),
        "site": lambda: saved(pack={**pack, "saes": {**saes, "there": saes["here"]}}),
        "gate": lambda: saved(pack={**pack, "gates": {**gates, "gate9": gates["gate0"]}}),
        "scope": lambda: saved(pack={**pack, "gates": {**gates, "gate0": {**gates["gate0"], "scope": "x"}}}),
        "vector": lambda: saved(vectors={"other": {"name": "a"}}),
        "shape": lambda: saved({**tensors, "sae.here.W_dec": tensors["sae.here.W_dec"][:2]}),
        "infinite": lambda: saved({**tensors, "sae.here.b_enc": tensors["sae.here.b_enc"] / 0}),
        "no tensor": lambda: saved({key: value for key, value in tensors.items() if key != "sae.here.threshold"}),
        "cut": lambda: path.write_bytes(path.read_bytes()[:-9]),
        "empty": lambda: path.write_bytes(b""),
        "none": lambda: path.unlink(),
        "vectors": lambda: save_file({"a": torch.ones(2)}, path),
    }.items():
        make()
        with pytest.raises(RecipeError) as caught:
            Recipe.load(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value), name
        saved()


# --- names ---


def test_packs_that_ship_have_names(
    folder: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(folder(), EDITS["features"])
    shipped = tmp_path / "shipped"
    monkeypatch.setattr("hooks.starter.FOLDER", shipped)
    with pytest.raises(RecipeError, match="no recipe that ships 'whisper:tiny.en/false-alarms'; there are none"):
        Recipe.load("whisper:tiny.en/false-alarms")
    (shipped / "whisper-tiny.en").mkdir(parents=True)
    pack_recipe(recipe, shipped / "whisper-tiny.en" / "false-alarms.safetensors")
    assert starter.recipes() == ["whisper:tiny.en/false-alarms"]
    for name in ("whisper:tiny.en/false-alarms", Path("whisper:tiny.en/false-alarms")):
        assert torch.equal(applied(Recipe.load(name)), applied(recipe))
    with pytest.raises(RecipeError, match="'whisper:base/false-alarms'; there are whisper:tiny.en/false-alarms"):
        Recipe.load("whisper:base/false-alarms")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("starter:asr/false-alarms", True),
        ("whisper:tiny.en/false-alarms", True),
        ("whisper:base/quiet", True),
        ("r.yaml", False),
        ("a:b/r.yaml", False),
        ("C:/recipes/r", False),
        ("folder/whisper:base/r", False),
        ("/whisper:base/r", False),
    ],
)
def test_which_texts_are_names(text: str, named: bool) -> None:
    assert starter.is_recipe_name(text) == named


# --- paths of models ---


@pytest.mark.parametrize("source", ["ct2:model", "ct2:model/model.bin", "whisper:w.pt", "bigcodec:sub/w.pt", "model"])
def test_a_model_is_found_beside_the_recipe(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "inside"
    for name in ("model", "sub"):
        (inside / name).mkdir(parents=True)
    for name in ("model/model.bin", "w.pt", "sub/w.pt"):
        (inside / name).touch()
    (inside / "r.yaml").write_text(f"model: {source}\nsaes: {{a: b}}\n")
    family, colon, rest = source.rpartition(":")
    recipe = Recipe.load(inside / "r.yaml")
    assert recipe.located(recipe.model) == f"{family}{colon}{inside / rest}"
    moved = Recipe.load(recipe.save(tmp_path / "moved.yaml"))
    assert moved.model == f"{family}{colon}inside/{rest}"
    assert os.path.exists(moved.located(moved.model).removeprefix(f"{family}{colon}"))


def test_names_stay_names(tmp_path: Path) -> None:
    for name in ("codec", "tiny", "24khz"):
        (tmp_path / name).mkdir()
    for source in ("starter:codec", "whisper:tiny", "encodec:24khz", "hf:codec/tiny"):
        assert Recipe.build({"model": source, "saes": {"a": "b"}}, folder=tmp_path).located(source) == source


# --- the commands ---


def test_the_commands(codec_folder: Path, sound: Callable[..., Path], tmp_path: Path, capsys: Any) -> None:
    from apps.cli import main
    from tests.tiny_codec import CONFIG

    def steer(*arguments: Any) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return int(left.value.code or 0), captured.out, captured.err

    torch.manual_seed(0)
    sae = SAE(CONFIG.dimension, 64, "jumprelu").requires_grad_(False)
    sae.info.site = "latent"
    sae.save(tmp_path / "sae")
    Gate(GateProbe(torch.ones(1, 1), -1.0, [9], site="latent", model=str(codec_folder)), -99.0).save(
        tmp_path / "g.safetensors"
    )
    source, recipe, pack = sound("a.wav"), tmp_path / "r.yaml", tmp_path / "p.safetensors"
    recipe.write_text(
        f"model: {codec_folder}\nsaes: {{latent: sae}}\nresidual: keep\n"
        "edits: [{clamp: {'0': 0.7, '40': -0.5}, when: g.safetensors}]\n"
    )
    assert steer("edit", source, "-o", tmp_path / "b.wav", "--recipe", recipe)[0] == 0
    code, out, told = steer("recipe", "pack", recipe, "-o", pack, "--effect", "level=2 dB", "--effect", "n=3", "--json")
    assert (code, told) == (0, "")
    said = json.loads(out)
    assert said["features"] == {"latent": [0, 9, 40]} and said["effect"] == {"level": "2 dB", "n": 3.0}
    assert said["gates"]["gate0"]["threshold"] == -99.0 and said["bytes"] == pack.stat().st_size
    assert steer("recipe", "show", pack, "--json")[1] == out
    assert "clamp: {'0': 0.7, '2': -0.5}" in steer("recipe", "show", pack)[1]
    for one in (tmp_path / "g.safetensors", *(tmp_path / "sae").iterdir()):
        one.unlink()
    assert steer("edit", source, "-o", tmp_path / "c.wav", "--recipe", pack)[0] == 0
    edited = [torch.from_numpy(soundfile.read(tmp_path / name)[0]) for name in ("a.wav", "b.wav", "c.wav")]
    assert torch.equal(edited[1], edited[2]) and not torch.equal(edited[0], edited[1])
    # a folder of files, one of them with a recipe of its own
    (tmp_path / "in.jsonl").write_text(json.dumps({"path": "a.wav", "recipe": "p.safetensors"}) + "\n")
    assert steer("edit", tmp_path / "in.jsonl", "-o", tmp_path / "out", "--recipe", pack)[0] == 0
    assert torch.equal(torch.from_numpy(soundfile.read(tmp_path / "out" / "a.wav")[0]), edited[2])

    pack.write_bytes(pack.read_bytes()[:-1])
    for arguments in (
        ("edit", source, "-o", tmp_path / "d.wav", "--recipe", pack),
        ("transcribe", source, "--recipe", pack),
        ("recipe", "show", pack),
        ("recipe", "show", tmp_path / "none.yaml"),
        ("recipe", "pack", recipe, "-o", pack),
        ("recipe", "pack", recipe, "-o", tmp_path / "q.safetensors"),
        ("recipe", "pack", recipe, "-o", tmp_path / "q.safetensors", "--effect", "much"),
    ):
        code, out, told = steer(*arguments)
        assert (code, out, told.count("\n")) == (2, "", 1), arguments
    assert not (tmp_path / "d.wav").exists() and not (tmp_path / "q.safetensors").exists()
