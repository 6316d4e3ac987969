from __future__ import annotations

from pathlib import Path

import pytest
import torch

from steer import starter
from steer.edits import Ablate, AddDirection, Clamp, Scale, Shift
from steer.errors import EditError, RecipeError, SAEError
from steer.recipe import Recipe
from steer.sae import SAE
from steer.values import Curve
from steer.vectors import ControlVector, save_vectors

VALUES = {
    "goals": {"loudness": "+6dB", "pitch": -2, "brightness": "20 %"},
    "edits": [
        {"ablate": [3, 17], "during": [0.5, 1.5]},
        {"clamp": {"5": 2.0, 7: 0}},
        {"scale": {4: [[0, 1], [2, 1.5]]}},
    ],
    "during": [[0, 4], [5, 6]],
    "residual": "drop",
}


def test_defaults_are_the_starter_and_nothing_to_do() -> None:
    recipe = Recipe()
    assert (recipe.model, recipe.saes) == ("starter:codec", {"latent": "starter:codec/latent"})
    assert recipe.edits_for() == {}
    assert recipe.wanted == {}
    assert recipe.residual is None and recipe.limit


def test_edits_of_every_kind() -> None:
    recipe = Recipe.build(VALUES)
    assert recipe.wanted == {"loudness": 6.0, "pitch": -2.0, "brightness": 20.0}
    everywhere = ((0.0, 4.0), (5.0, 6.0))
    assert recipe.edits_for()["latent"] == [
        Ablate([3, 17], during=(0.5, 1.5)),  # its own spans go before those of the whole recipe
        Clamp([5, 7], [2.0, 0.0], during=everywhere),
        Scale([4], Curve(((0.0, 1.0), (2.0, 1.5))), during=everywhere),
    ]


def test_numbers_are_one_edit() -> None:
    recipe = Recipe.build({"edits": [{"scale": {3: 2.0, 5: 1.5, 4: 2.0}}, {"clamp": {1: [[0, 1]], 2: [[0, 1]]}}]})
    assert recipe.edits_for()["latent"] == [
        Scale([3, 5, 4], [2.0, 1.5, 2.0]),
        Clamp([1, 2], Curve(((0.0, 1.0),))),
    ]


def test_an_edit_is_written_as_it_was_read() -> None:
    edits = [
        {"scale": {"3": 2.0, "5": [[0.0, 1.0], [1.0, 2.0]]}, "site": "latent", "during": [[0.0, 1.0]]},
        {"shift": "v.safetensors#warm", "strength": [[0.0, 1.0]]},
        {"ablate": [3]},
    ]
    written = Recipe.build({"edits": edits}).to_dict()["edits"]
    assert written == edits
    assert [next(iter(edit)) for edit in written] == ["scale", "shift", "ablate"]


@pytest.mark.parametrize("name", ["r.yaml", "r.json"])
def test_file_says_the_same(tmp_path: Path, name: str) -> None:
    recipe = Recipe.build(VALUES)
    assert Recipe.load(recipe.save(tmp_path / name)).to_dict() == recipe.to_dict()
    with pytest.raises(RecipeError, match="exists already"):
        recipe.save(tmp_path / name)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"goal": {}}, "no key 'goal'; did you mean 'goals'"),
        ({"goals": {"loudnes": 3}}, "no key 'goals.loudnes'; did you mean 'loudness'"),
        ({"edits": [{"abblate": [1]}]}, "no key 'edits.0.abblate'; did you mean 'ablate'"),
        ({"goals": {"loudness": "6 apples"}}, "goals.loudness: '6 apples' is not an amount such as"),
        ({"goals": {"loudness": "6st"}}, "goals.loudness: '6st' is not an amount"),
        ({"goals": {"loudness": float("nan")}}, "goals.loudness: .*finite"),
        ({"goals": {"brightness": -100}}, "goals.brightness: .*greater than -100"),
        ({"edits": [{"ablate": [1], "clamp": {1: 2}}]}, "edits.0: an edit is exactly one of"),
        ({"edits": [{}]}, "edits.0: an edit is exactly one of"),
        ({"edits": [{"ablate": [1], "strength": 2}]}, "edits.0: strength belongs to shift and add_direction"),
        ({"edits": [{"ablate": [1], "during": [2, 1]}]}, "edits.0.during: a span of 2 to 1 s is empty"),
        ({"edits": [{"clamp": {1: "x"}}]}, "edits.0.clamp.1: .*number"),
        ({"edits": [{"clamp": {1: [[1, 2], [0, 3]]}}]}, "edits.0.clamp.1: a curve needs points whose times rise"),
        ({"edits": [{"ablate": [1.5]}]}, "edits.0.ablate.0: .*integer"),
        ({"during": "soon"}, "during: a span is"),
        ({"residual": "both"}, "residual: .*'keep', 'drop' or 'ratio'"),
        ({"model": "encodec:24khz"}, "saes: say which SAE"),
    ],
)
def test_mistakes_are_told_in_one_line(values: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        Recipe.build(values)
    assert "\n" not in str(caught.value)


def test_files_that_are_no_recipes(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"none\.yaml: cannot be read"):
        Recipe.load(tmp_path / "none.yaml")
    for text, message in (("a: [1", "neither YAML nor JSON in line"), ("just words", "holds no keys")):
        (tmp_path / "r.yaml").write_text(text)
        with pytest.raises(RecipeError, match=message):
            Recipe.load(tmp_path / "r.yaml")


def test_recipes_that_ship_have_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hooks.starter.FOLDER", tmp_path)
    with pytest.raises(RecipeError, match="no starter recipe 'starter:ear/warmer'; there are none"):
        Recipe.load("starter:ear/warmer")
    (tmp_path / "ear").mkdir()
    (tmp_path / "ear" / "warmer.yaml").write_text("model: whisper:tiny\nsaes: {encoder.1: mine}\npadding: false\n")
    assert starter.recipes() == ["starter:ear/warmer"]
    recipe = Recipe.load("starter:ear/warmer")
    assert (recipe.model, recipe.padding) == ("whisper:tiny", False)


def test_paths_are_relative_to_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir()
    vector = torch.arange(4.0)
    save_vectors({"warm": ControlVector(vector, "warm")}, tmp_path / "there" / "v.safetensors")
    (tmp_path / "there" / "r.yaml").write_text("edits: [{shift: 'v.safetensors#warm', strength: 8}]")
    recipe = Recipe.load(tmp_path / "there" / "r.yaml")
    (shift,) = recipe.edits_for()["latent"]
    assert isinstance(shift, Shift)
    assert torch.equal(shift.vector, vector)
    assert shift.strength == 8.0
    moved = recipe.save(tmp_path / "r.yaml")
    assert "there/v.safetensors#warm" in moved.read_text()
    monkeypatch.chdir(tmp_path / "there")
    assert torch.equal(Recipe.load(moved).edits_for()["latent"][0].vector, vector)  # type: ignore[attr-defined]


def test_a_checkpoint_is_relative_to_the_recipe_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "model.pt").touch()
    (tmp_path / "there" / "r.yaml").write_text("model: whisper:model.pt\nsaes: {encoder.0: s}")
    recipe = Recipe.load(tmp_path / "there" / "r.yaml")
    assert recipe.located(recipe.model) == f"whisper:{tmp_path / 'there' / 'model.pt'}"
    moved = recipe.save(tmp_path / "r.yaml")
    assert "model: whisper:there/model.pt" in moved.read_text()
    # what is not there, absolute, or a name stays as it is
    (tmp_path / "there" / "tiny").touch()
    for name in ("whisper:other.pt", "whisper:tiny", f"whisper:{tmp_path / 'there' / 'model.pt'}"):
        assert recipe.located(name) == name
        other = Recipe.build({"model": name, "saes": {"a": "b"}}, folder=tmp_path / "there")
        assert other.to_dict(tmp_path)["model"] == name


def test_a_starter_brings_its_own_saes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hooks.starter.FOLDER", tmp_path)
    for name in ("asr/config.json", "asr/encoder.0/cfg.json", "asr/encoder.1/cfg.json", "other/x/cfg.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    saes = {"encoder.0": "starter:asr/encoder.0", "encoder.1": "starter:asr/encoder.1"}
    assert Recipe.build({"model": "starter:asr"}).saes == saes
    assert Recipe.build({"model": "starter:asr", "saes": {"encoder.1": "mine"}}).saes == {"encoder.1": "mine"}
    for model in ("asr", "starter:other", str(tmp_path / "asr")):
        with pytest.raises(RecipeError, match=f"saes: say which SAE belongs to which site of {model}"):
            Recipe.build({"model": model})
    # whoever reads a file may say what it is for if it does not
    (tmp_path / "r.yaml").write_text("edits: [{ablate: [1], site: encoder.1}]")
    assert Recipe.load(tmp_path / "r.yaml", "starter:asr").saes == saes
    (tmp_path / "r.yaml").write_text("model: mine\nsaes: {a: b}")
    assert Recipe.load(tmp_path / "r.yaml", "starter:asr").model == "mine"


def test_goals_use_the_vectors_beside_the_sae_before_all_edits(tmp_path: Path) -> None:
    SAE(3, 8, "relu").save(tmp_path)
    vector = torch.ones(8)
    save_vectors({"loudness": ControlVector(vector, "loudness")}, tmp_path / "vectors.safetensors")
    values = {"model": "m", "saes": {"latent": str(tmp_path)}, "goals": {"loudness": 3}, "edits": [{"ablate": [1]}]}
    recipe = Recipe.build(values)
    vectors = recipe.control_vectors()
    assert vectors["loudness"].site == "latent"
    # an ablated feature stays silent whatever the goals add to it
    shift, ablate = recipe.edits_for({"loudness": 2.5}, vectors)["latent"]
    assert isinstance(shift, Shift)
    assert shift.strength == 2.5
    assert ablate == Ablate([1])
    with pytest.raises(RecipeError, match="goal pitch: no control vector 'pitch'"):
        Recipe.build({**values, "goals": {"pitch": 1}}).control_vectors()


def test_site_may_be_left_out_only_where_there_is_one_sae() -> None:
    two = {"model": "m", "saes": {"a": "x", "b": "y"}}
    with pytest.raises(EditError, match="names no site; there are SAEs at a, b"):
        Recipe.build({**two, "edits": [{"ablate": [1]}]}).edits_for()
    with pytest.raises(EditError, match="site 'c'"):
        Recipe.build({**two, "edits": [{"ablate": [1], "site": "c"}]}).edits_for()
    assert Recipe.build({**two, "edits": [{"ablate": [1], "site": "b"}]}).edits_for() == {"b": [Ablate([1])]}


# --- directions ---

DIRECTIONS = {
    site: ControlVector(torch.randn(3, generator=torch.Generator().manual_seed(1)), "noise", site=site, model="m:one")
    for site in ("a", "c")
}


@pytest.fixture
def file(tmp_path: Path) -> str:
    save_vectors(DIRECTIONS, tmp_path / "d.safetensors")
    return str(tmp_path / "d.safetensors")


def test_directions_go_where_they_were_fitted_with_no_sae(file: str, tmp_path: Path) -> None:
    recipe = Recipe.build({"model": "m:one", "edits": [{"add_direction": file, "strength": 2, "keep_norm": True}]})
    edits = {site: [AddDirection(vector, 2.0, True, made_for="m:one")] for site, vector in DIRECTIONS.items()}
    assert recipe.edits_for() == edits
    assert Recipe.load(recipe.save(tmp_path / "r.yaml")).edits_for() == edits
    spanned = {"during": [1, 2], "add_direction": f"{file}#c", "strength": [[0, 1], [1, 3]]}
    curve = Curve(((0.0, 1.0), (1.0, 3.0)))
    assert Recipe.build({"model": "m:one", "edits": [spanned]}).edits_for() == {
        "c": [AddDirection(DIRECTIONS["c"], curve, during=(1.0, 2.0))]
    }


def test_a_direction_may_be_put_elsewhere_and_stands_beside_edits_of_features(file: str) -> None:
    edits = [{"ablate": [1], "site": "b"}, {"add_direction": f"{file}#a", "site": "b"}, {"add_direction": file}]
    found = Recipe.build({"model": "m:one", "saes": {"b": "x", "c": "y"}, "edits": edits}).edits_for()
    assert found == {
        "b": [Ablate([1]), AddDirection(DIRECTIONS["a"])],
        "a": [AddDirection(DIRECTIONS["a"])],
        "c": [AddDirection(DIRECTIONS["c"])],
    }
    chosen = [{"add_direction": file, "site": "c"}]
    assert Recipe.build({"model": "m:one", "edits": chosen}).edits_for() == {"c": [AddDirection(DIRECTIONS["c"])]}


def test_what_is_wrong_with_directions(file: str, tmp_path: Path) -> None:
    def edits_for(**edit: object) -> object:
        return Recipe.build({"model": "m:one", "edits": [edit]}).edits_for()

    with pytest.raises(EditError, match=r"holds no direction for 'b'; name one as .*#NAME"):
        edits_for(add_direction=file, site="b")
    with pytest.raises(EditError, match="no such file"):
        edits_for(add_direction=str(tmp_path / "none.safetensors"))
    save_vectors({"x": ControlVector(torch.ones(3), "x")}, tmp_path / "bare.safetensors")
    with pytest.raises(EditError, match="x does not say at which site"):
        edits_for(add_direction=str(tmp_path / "bare.safetensors"))
    two = {name: ControlVector(torch.ones(3), name, site="a") for name in ("x", "y")}
    save_vectors(two, tmp_path / "two.safetensors")
    with pytest.raises(EditError, match="holds several directions for 'a'"):
        edits_for(add_direction=str(tmp_path / "two.safetensors"))
    for values, message in (
        ({"edits": [{"ablate": [1], "keep_norm": True}]}, "edits.0: keep_norm belongs to add_direction"),
        ({"model": "m", "goals": {"loudness": 3}, "edits": [{"add_direction": file}]}, "saes: say which SAE"),
        ({"model": "m", "edits": [{"add_direction": file}, {"ablate": [1]}]}, "saes: say which SAE"),
    ):
        with pytest.raises(RecipeError, match=message):
            Recipe.build(values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 2_000, "neither YAML nor JSON"),
        ("&a [*a]", "neither YAML nor JSON .more than 100,000 values"),
        ("# " + "x" * 2**20, "is larger than 1 MiB"),
        (f"model: {'x' * 10_000}", "saes: say which SAE"),
    ],
)
def test_text_that_would_grow_is_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message) as error:
        Recipe.load(path)
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 1_000


def test_a_name_that_is_too_long_is_no_path() -> None:
    recipe = Recipe.build({"model": "starter:codec", "saes": {"latent": "x" * 300}})
    with pytest.raises(SAEError, match="there is no SAE"):
        recipe.open()
