"""The recipes that ship for OpenAI's Whisper, on its own weights: in three libraries nothing is written where nobody
speaks, and speech is written as without them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hooks import open_model
from hooks.families.whisper.export import export
from steer import Recipe
from steer.packs import load_pack
from steer.starter import recipe_file
from tests.test_real_gates import GREEDY, some

pytest.importorskip("whisper", reason="extra whisper")
LANGUAGE: dict[str, Any] = {"no_speech_threshold": None, "logprob_threshold": None, **GREEDY}


@pytest.fixture(scope="module")
def models(real_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Each with the options by which it is greedy."""
    pytest.importorskip("transformers", reason="extra whisper")
    checkpoint = open_model(f"whisper:{real_weights}/tiny.en.pt")
    folder = tmp_path_factory.mktemp("transformers")
    export(checkpoint, folder)
    return {
        "openai-whisper": (checkpoint, LANGUAGE),
        "faster-whisper's folder": (open_model(f"ct2:{real_weights}/ct2/tiny.en"), LANGUAGE),
        "transformers": (open_model(folder), {"return_timestamps": True}),
    }


@pytest.mark.parametrize("library", ["openai-whisper", "faster-whisper's folder", "transformers"])
def test_no_invented_words(library: str, models: dict[str, tuple[Any, dict[str, Any]]], recordings: Path) -> None:
    model, options = models[library]
    recipe = Recipe.load("whisper:tiny.en/false-alarms")
    steered = recipe.open(model=model)
    noises = some(recordings, "esc10", "test", 13, 3)
    (sentence,) = some(recordings, "ljspeech", "test", 1, 1)
    assert any(str(model.transcribe(path, **options)).strip() for path in noises)
    plain = model.transcribe(sentence, **options)
    with steered.edit(recipe.edits_for()):
        assert [str(steered.transcribe(path, **options)).strip() for path in noises] == [""] * 3
        assert steered.transcribe(sentence, **options) == plain


def test_base(real_weights: Path, recordings: Path) -> None:
    model = open_model(f"whisper:{real_weights}/base.pt")
    recipe = Recipe.load("whisper:base/false-alarms")
    steered = recipe.open(model=model)
    options = {**LANGUAGE, "language": "en"}
    (noise,), (sentence,) = some(recordings, "esc10", "test", 13, 1), some(recordings, "ljspeech", "test", 1, 1)
    plain = model.transcribe(sentence, **options)
    assert str(model.transcribe(noise, **options)).strip()
    with steered.edit(recipe.edits_for()):
        assert not str(steered.transcribe(noise, **options)).strip()
        assert steered.transcribe(sentence, **options) == plain


@pytest.mark.parametrize("model", ["whisper:tiny.en", "whisper:base"])
def test_it_says_what_it_does_and_names_no_place(model: str) -> None:
    path = recipe_file(f"{model}/false-alarms")
    pack = load_pack(path)
    (gate,) = pack.gates.values()
    assert pack.recipe["model"] == gate.probe.model == model and len(gate.probe.features or ()) <= 30
    assert pack.effect and path.stat().st_size < 2**19 and b"/var/" not in path.read_bytes()
