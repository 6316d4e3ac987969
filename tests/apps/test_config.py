"""Defaults from the configuration file: who wins, and what is wrong with a file in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile

from apps.config import VARIABLE, ConfigError, config_path

Run = Callable[..., tuple[int, str, str]]
Write = Callable[..., Path]
RecipeOf = Callable[..., dict[str, Any]]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Writes the configuration file."""
    path = tmp_path / "config" / "config.toml"
    path.parent.mkdir()
    monkeypatch.setenv(VARIABLE, str(path))

    def write(text: str) -> Path:
        path.write_text(text)
        return path

    return write


@pytest.fixture
def recipe_of(steer: Run, codec_folder: Path, sae_folder: Path, sound: Write, tmp_path: Path) -> RecipeOf:
    """The recipe by which `steer edit OPTIONS` edits a sound."""

    def run(*options: object) -> dict[str, Any]:
        out = tmp_path / "out.wav"
        means = () if "--recipe" in options else ("--model", codec_folder, "--sae", sae_folder)
        code, shown, err = steer("edit", sound("a.wav", 0.3), "-o", out, *means, *options, "--json", "--force")
        assert code == 0, err
        return json.loads(shown)["recipe"]  # type: ignore[no-any-return]

    return run


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    path = config_path()
    assert path is not None and path.name == "config.toml" and path.parent.name == "audiosteer"
    monkeypatch.setenv(VARIABLE, "other.toml")
    assert config_path() == Path("other.toml")
    monkeypatch.setenv(VARIABLE, "")
    assert config_path() is None


def test_it_is_read_from_the_users_folder(steer: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert steer("models")[0] == 0  # no file
    path = config_path()
    assert path is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.is_relative_to(tmp_path):
        pytest.skip("the user's folder cannot be moved on this system")
    path.write_text("[models]\njson = true")
    assert json.loads(steer("models")[1])


def test_options_win(config: Callable[[str], Path], recipe_of: RecipeOf) -> None:
    config('[edit]\nresidual = "keep"\nclamp = ["0=1", "2=0.5"]\nlimit = false\nduring = "0.1-0.2"')
    made = recipe_of()
    assert (made["residual"], made["limit"], made["during"]) == ("keep", False, [[0.1, 0.2]])
    assert made["edits"] == [{"clamp": {"0": 1.0}}, {"clamp": {"2": 0.5}}]
    made = recipe_of("--residual", "drop", "--limit", "--clamp", "3=1")
    assert (made["residual"], made.get("limit", True), made["edits"]) == ("drop", True, [{"clamp": {"3": 1.0}}])


def test_a_recipe_wins_for_what_a_recipe_says(
    config: Callable[[str], Path], recipe_of: RecipeOf, codec_folder: Path, tmp_path: Path
) -> None:
    config("")
    plain = recipe_of("--clamp", "0=1", "--save-recipe", tmp_path / "r.yaml")
    config('[edit]\nresidual = "drop"\nmodel = "starter:wavtokenizer"\nclamp = ["1=1"]\nlimit = false')
    again = recipe_of("--recipe", tmp_path / "r.yaml")
    assert again["edits"] == plain["edits"] and again["model"] == str(codec_folder)
    assert "residual" not in again and "limit" not in again
    assert recipe_of("--recipe", tmp_path / "r.yaml", "--residual", "drop")["residual"] == "drop"


def test_a_recipe_in_a_manifest_wins_too(
    config: Callable[[str], Path], steer: Run, codec_folder: Path, sae_folder: Path, sound: Write, tmp_path: Path
) -> None:
    own = {"model": str(codec_folder), "saes": {"latent": str(sae_folder)}}
    row = {"path": str(sound("a.wav", 0.3)), "recipe": own}
    (tmp_path / "list.jsonl").write_text(json.dumps(row) + "\n")
    config('[edit]\nclamp = ["0=1"]')
    assert steer("edit", tmp_path / "list.jsonl", "-o", tmp_path / "out")[0] == 0
    # the recipe has no edits: the file comes back as it was
    before, after = (soundfile.read(path)[0] for path in (tmp_path / "a.wav", tmp_path / "out" / "a.wav"))
    assert (before == after).all()


def test_a_switch_and_the_environment(config: Callable[[str], Path], steer: Run) -> None:
    config('[models]\njson = true\n[demo]\nauth = ["ann"]')
    assert json.loads(steer("models")[1])
    code, _, err = steer("demo", "--atlas", "none")
    assert code == 2 and "--auth takes USER:PASSWORD" in err


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[edit]\nresidul = "keep"', "[edit] residul: steer edit has no such option; did you mean residual?"),
        ('[edti]\nresidual = "keep"', "there is no command for the table [edti]; did you mean edit?"),
        ('residual = "keep"', "'residual' is not in the table of a command; write it below [edit], for example"),
        ("[edit]\nloudness", "is not TOML ("),
        ("[features]\ntop = 2.5", "[features] top: "),
        ("[features]\ntop = 0", "[features] top: "),
        ("[features]\ntop = [1, 2]", "[features] top: takes one value, not a list"),
        ("[features]\njson = 1", "[features] json: is true or false, not 1"),
        ("[edit]\nablate = [[1]]", "[edit] ablate: [1] is neither text nor a number"),
        ("[edit]\nresidual = true", "[edit] residual: True is neither text nor a number"),
        ("[edit]\ninputs = 'a.wav'", "[edit] inputs: steer edit has no such option"),
        (
            "[recipe.pack]\nefect = 'x'",
            "[recipe.pack] efect: steer recipe pack has no such option; did you mean effect?",
        ),
        ("[recipe]\nforce = true", "'recipe.force' is not in the table of a command"),
        ("[recipe.pac]\nforce = true", "there is no command for the table [recipe.pac]; did you mean pack?"),
    ],
)
def test_a_mistake_is_one_line_with_the_file_and_the_key(
    config: Callable[[str], Path], steer: Run, text: str, said: str
) -> None:
    path = config(text)
    code, out, err = steer("recipe", "show", "starter:asr/false-alarms")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"steer: {path}: {said}")


def test_what_cannot_be_read(config: Callable[[str], Path], steer: Run) -> None:
    path = config("")
    assert steer("models")[0] == 0
    path.write_bytes(b"\xff")
    assert steer("models")[2].startswith(f"steer: {path}: is not TOML (")
    path.unlink()
    assert steer("models")[2] == f"steer: {path}: no such file ({VARIABLE})\n"
    path.mkdir()
    assert steer("models")[2].startswith(f"steer: {path}: cannot be read (")


def test_tables_of_evaluators_are_read_with_them(config: Callable[[str], Path], steer: Run, tmp_path: Path) -> None:
    config('[evaluate.gates]\ndevise = "cuda"\n[evaluate.acoustics]\nrequests = "0"')
    assert steer("models")[0] == 0
    code, _, err = steer("evaluate", "gates", "--audio", tmp_path, "--out", tmp_path / "out")
    assert code == 2 and "[evaluate.gates] devise: steer evaluate gates has no such option; did you mean device?" in err
    config('[evaluate.acoustics]\nrequests = "0"')
    code, _, err = steer("evaluate", "acoustics", "--audio", tmp_path, "--out", tmp_path / "out")
    assert code == 2 and "--requests 0" in err


def test_the_file_is_not_read_for_completion_and_help(config: Callable[[str], Path], steer: Run) -> None:
    config("[edit")
    assert steer("--help")[0] == steer("--version")[0] == 0
    assert issubclass(ConfigError, Exception)
