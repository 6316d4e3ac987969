"""With the recogniser that writes "hello" unless axis 1, how far a sound is below zero, is above 0.8 (`listener`)."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from apps.page.transcribe_run import NO_EDITS, Transcribed, mean_of, shipped, transcribe_three
from evaluation.transcripts import defaults
from hooks import AudioSteerError, Clip, Encoder, ModelError, Transcriber, Transcript
from steer.errors import EditError, RecipeError
from steer.recipe import Recipe
from steer.sae import SAE
from steer.steered import SteeredModel
from training.sounds import make_noise

RATE = 16_000
TWICE = [{"scale": {1: 2}, "site": "ear.0"}, {"scale": {1: 2}, "site": "ear.1"}]


def level(value: float, seconds: float = 1.0) -> Clip:
    return Clip(torch.full((1, round(RATE * seconds)), value), RATE)


def identity(gain: float = 1.0) -> SAE:
    """Feature i is axis i; a reconstruction is `gain` times as high."""
    sae = SAE(4, 4, "relu")
    sae.W_enc.data.copy_(torch.eye(4))
    sae.W_dec.data.copy_(gain * torch.eye(4))
    return sae


def recipe_with(*edits: object, **more: object) -> Recipe:
    return Recipe.build({"model": "listener", "saes": {"ear.0": "a", "ear.1": "b"}, "edits": list(edits), **more})


def quiet(stage: str, share: float) -> None:
    """Nobody looks."""


@pytest.fixture
def steered(listener: Transcriber) -> SteeredModel:
    return SteeredModel(listener, {"ear.0": identity(), "ear.1": identity()})


def texts(done: Transcribed) -> tuple[str, str, str]:
    return str(done.baseline.transcript), str(done.reconstruction.transcript), str(done.edited.transcript)


def test_as_it_is_through_the_saes_and_edited(steered: SteeredModel, listener: Transcriber) -> None:
    done = transcribe_three(steered, recipe_with(*TWICE), level(-0.25), quiet)
    assert texts(done) == ("hello", "hello", "")
    assert (done.sites, done.seconds, done.note) == (("ear.0", "ear.1"), 1.0, "")
    assert done.baseline.no_speech_prob is None and done.edited.avg_logprob is None
    # 0.25 becomes 1 in what the second SAE decodes
    poor = SteeredModel(listener, {"ear.0": identity(), "ear.1": identity(4.0)})
    edit = {"scale": {0: 1}, "site": "ear.1"}
    assert texts(transcribe_three(poor, recipe_with(edit), level(-0.25), quiet)) == ("hello", "", "hello")
    # the reconstruction is where the edits are
    edit = {"scale": {0: 1}, "site": "ear.0"}
    done = transcribe_three(poor, recipe_with(edit), level(-0.25), quiet)
    assert texts(done) == ("hello", "hello", "hello") and done.sites == ("ear.0",)


def test_without_edits_the_edited_one_is_the_baseline(steered: SteeredModel) -> None:
    told: list[str] = []
    done = transcribe_three(steered, recipe_with(), level(-0.25), lambda stage, share: told.append(stage))
    assert done.edited is done.baseline and done.note == NO_EDITS
    assert done.sites == ("ear.0", "ear.1") and "edited" not in told


def test_what_report_raises_stops_the_run_and_leaves_nothing(steered: SteeredModel, listener: Transcriber) -> None:
    told: list[tuple[str, float]] = []
    transcribe_three(steered, recipe_with(*TWICE), level(-0.25), lambda *told_of: told.append(told_of))
    assert list(dict(told)) == ["baseline", "reconstruction only", "edited", "done"]
    shares = [share for _, share in told]
    assert shares == sorted(shares) and (shares[0], shares[-1]) == (0.0, 1.0)

    class Left(Exception):
        """The tab was closed."""

    for last in range(len(told)):
        count = 0

        def leave(stage: str, share: float, last: int = last) -> None:
            nonlocal count
            if count == last:
                raise Left
            count += 1

        with pytest.raises(Left):
            transcribe_three(steered, recipe_with(*TWICE), level(-0.25), leave)
        assert listener.transcribe(level(-0.25)) == "hello"
        assert not any(one._forward_hooks or one._forward_pre_hooks for one in listener.module.modules())


def test_two_users_of_one_model_have_their_own_edits(steered: SteeredModel) -> None:
    def run(number: int) -> tuple[str, str, str]:
        recipe = recipe_with(*TWICE) if number % 2 else recipe_with({"ablate": [1], "site": "ear.0"})
        return texts(transcribe_three(steered, recipe, level(-0.25), quiet))

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(run, range(24)))
    assert results == [("hello", "hello", ""), ("hello", "hello", "hello")][::-1] * 12


def test_refused_before_anything_runs(steered: SteeredModel, listener: Transcriber) -> None:
    def refused(steered: SteeredModel, recipe: Recipe, kind: type[AudioSteerError]) -> str:
        told: list[str] = []
        with pytest.raises(kind) as error:
            transcribe_three(steered, recipe, level(0.1), lambda stage, share: told.append(stage))
        assert not told and "\n" not in str(error.value)
        return str(error.value)

    encoder = Encoder(listener.module, list(listener.sites.values()), name="ears", sample_rate=RATE)
    deaf = SteeredModel(encoder, {"ear.0": identity(), "ear.1": identity()})
    assert "ears is a encoder and writes no words" in refused(deaf, recipe_with(), ModelError)
    assert "goals (loudness)" in refused(steered, recipe_with(goals={"loudness": 3}), RecipeError)
    assert "99" in refused(steered, recipe_with({"ablate": [99], "site": "ear.0"}), EditError)


def test_means_are_weighted_by_the_length_of_segments() -> None:
    def said(*segments: tuple[float, float, float]) -> Transcript:
        return Transcript("", [{"start": start, "end": end, "no_speech_prob": p} for start, end, p in segments])

    assert mean_of(said((0, 1, 0.9), (1, 4, 0.1)), "no_speech_prob") == pytest.approx(0.3)
    assert mean_of(said((2, 2, 0.5), (2, 2, 0.7)), "no_speech_prob") == pytest.approx(0.6)
    assert mean_of(said(), "no_speech_prob") is None and mean_of(said((0, 1, 0.9)), "avg_logprob") is None


# --- the starter ---


@pytest.fixture(scope="module")
def starter() -> tuple[SteeredModel, Recipe]:
    pytest.importorskip("whisper", reason="extra whisper")
    recipe = shipped()
    return recipe.open(), recipe


def test_no_words_in_noise_by_the_false_alarm_recipe(starter: tuple[SteeredModel, Recipe]) -> None:
    steered, recipe = starter
    noise = Clip(torch.from_numpy(make_noise(4.0, RATE, np.random.default_rng(0)).waveform), RATE)
    done = transcribe_three(steered, recipe, noise, quiet)
    assert done.baseline.transcript and done.reconstruction.transcript and not done.edited.transcript
    assert done.baseline.no_speech_prob is not None and done.edited.no_speech_prob is not None
    assert done.baseline.no_speech_prob < 0.1 < 0.8 < done.edited.no_speech_prob
    assert done.edited.avg_logprob is not None and done.edited.avg_logprob < 0
    assert math.isfinite(done.edited.avg_logprob)
    # a sound has one transcript: a second run says the same, and the model's own is the baseline
    assert texts(transcribe_three(steered, recipe, noise, quiet)) == texts(done)
    options = {key: value for key, value in defaults(steered.model).items() if key != "language"}
    assert steered.transcribe(noise, **options) == done.baseline.transcript


def test_no_words_in_recorded_rain_by_the_false_alarm_recipe(
    starter: tuple[SteeredModel, Recipe], recordings: Path
) -> None:
    done = transcribe_three(*starter, recordings / "esc10" / "rain" / "4-166661-A.ogg", quiet)
    assert done.baseline.transcript and not done.edited.transcript


def test_two_users_of_the_starter_at_once(starter: tuple[SteeredModel, Recipe]) -> None:
    steered, recipe = starter
    plain = Recipe.build({"model": "starter:asr", "edits": [{"ablate": [94, 191], "site": "encoder.1"}]})
    noise = Clip(torch.from_numpy(make_noise(2.0, RATE, np.random.default_rng(2)).waveform), RATE)

    def run(recipe: Recipe) -> list[object]:
        done = transcribe_three(steered, recipe, noise, quiet)
        return [(str(one.transcript), one.no_speech_prob, one.avg_logprob) for one in (done.baseline, done.edited)]

    alone = [run(recipe), run(plain)]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(run, [recipe, plain] * 2)) == alone * 2


def test_no_such_recipe_ships() -> None:
    with pytest.raises(RecipeError, match="there are starter:asr/false-alarms"):
        shipped("starter:asr/none")
