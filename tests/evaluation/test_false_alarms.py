"""Exact numbers by a recogniser of which all is known (`listener`), and random weights for what is Whisper's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evaluation import false_alarms
from evaluation.dataset import LabelledSound
from evaluation.false_alarms import Outcome, evaluate
from evaluation.transcripts import Clips, FalseAlarmError, defaults
from hooks import AudioModel, MissingExtraError, Transcriber, wrap_model
from steer import SAE, SteeredModel
from steer.recipe import Recipe

whisper = pytest.importorskip("whisper", reason="extra whisper")
pytest.importorskip("jiwer", reason="extra whisper")


def sae() -> SAE:
    one = SAE(4, 4, "relu")
    one.W_dec.data.copy_(torch.eye(4))
    one.W_enc.data.copy_(torch.eye(4))
    return one


def clips(split: str, count: int = 3) -> Clips:
    """Speech is at +0.5, the rest at -0.5: "hello" is written of both."""

    def sounds(level: float, text: str) -> list[LabelledSound]:
        audio_N = torch.full((16_000,), level)
        return [LabelledSound((1 + i / 100) * audio_N, f"{split} {level} {i}", {"text": text}) for i in range(count)]

    return Clips(sounds(-0.5, ""), sounds(0.5, "Hello!"), split)


SETS = clips("train"), clips("valid"), clips("test", 4)


def absent() -> Callable[[Tensor], float]:
    raise MissingExtraError("no detector here")


def run(steered: SteeredModel, **settings: Any) -> Outcome:
    return evaluate(steered, *SETS, **({"detector": absent, "strengths": (0.5, 1.0, 2.0), "words": 0} | settings))


def by_method(outcome: Outcome) -> dict[str, dict[str, Any]]:
    return {row["method"]: row for row in outcome.report.rows}


def test_false_alarms_go_and_speech_stays(listener: Transcriber) -> None:
    outcome = run(SteeredModel(listener, {"ear.0": sae(), "ear.1": sae()}), draws=8)
    rows = by_method(outcome)
    assert list(rows) == ["baseline", "SAE reconstruction", "SAE steering", "activation steering", "random features"]
    base, edited, by_chance = rows["baseline"], rows["SAE steering"], rows["random features"]
    assert (base["alarms"], base["false alarms"].value, base["false alarms"].count) == ("4 of 4", 1, 4)
    assert base["words/min"].value == 60  # a word in each second
    assert (base["fewer"], base["WER change"], base["no_speech_prob < 0.5"]) == (None, None, None)
    assert rows["SAE reconstruction"]["alarms"] == "4 of 4"
    # times two is enough for one feature at one site; a shift takes two of them
    assert edited["choice"] == "scale, 1 feature at ear.0, strength 1"
    assert (edited["false alarms"].value, edited["fewer"].value, edited["words/min"].value) == (0, 1, 0)
    assert (edited["WER"].value, edited["WER change"].value) == (0, 0)
    # without features to count, the weakest is the cheapest
    assert rows["activation steering"]["choice"] == "difference of means at ear.0, ear.1, strength 0.5"
    assert rows["activation steering"]["alarms"] == "0 of 4"
    # the only other feature that fires is silent in these sounds
    assert by_chance["alarms"] == "4 of 4 (4 to 4)"
    assert outcome.report.about["random draws"] == [{"false alarms": 1.0, "WER": 0.0}] * 8
    # all of 4 clips, and all of 4 false alarms: that says little
    assert base["false alarms"].low == edited["fewer"].low == pytest.approx(0.0251**0.25, abs=1e-3)
    about = outcome.report.about
    assert about["left out"] == {
        "fitted steering": "listener is no Whisper",
        "thresholds": "listener is not openai-whisper's",
        "Silero VAD gate": "no detector here",
    }
    assert about["clips"] == {"train": [3, 3], "valid": [3, 3], "test": [4, 4]}
    # the strongest silence speech too: after the first of three words nothing more was counted
    moved = [row for row in about["trials"] if row["method"].startswith("difference of means at ear.0, strength")]
    assert [row["false alarms"] for row in moved if row["WER"] == 1 / 3] == [None]
    assert moved[-1]["WER"] == 1 / 3
    first = outcome.report.clips[0]
    assert (first["baseline"], first["SAE steering"], first["said"]) == ("hello", "", "")
    assert outcome.report.clips[-1]["said"] == "Hello!"


def test_clips_that_it_can_write_are_told_apart(listener: Transcriber) -> None:
    def with_one_more(split: str) -> Clips:
        some = clips(split)
        # at a level of its own: the first thing to go quiet
        odd = LabelledSound(torch.full((16_000,), 0.1), "odd", {"text": "good bye everybody"})
        return Clips(some.silent, [*some.speech, odd], split)

    sets = [with_one_more(split) for split in ("train", "valid", "test")]
    outcome = evaluate(SteeredModel(listener, sae(), "ear.0"), *sets, detector=absent, strengths=(0.5, 1.0), draws=0)
    rows = by_method(outcome)
    assert outcome.report.title.endswith("4 with, of which it can write 3")
    base, edited = rows["baseline"], rows["SAE steering"]
    assert (base["WER errors"], base["WER"].value, base["WER"].count) == ("3 of 6", 0.5, 4)
    assert (base["WER, able errors"], base["WER, able"].value, base["WER, able"].count) == ("0 of 3", 0, 3)
    assert (edited["WER change"].value, edited["WER, able change"].value) == (0, 0)
    assert rows["SAE steering"]["alarms"] == "0 of 3"
    # where it can write nothing, everything counts
    mute = [Clips(one.silent, one.speech[-1:], one.split) for one in sets]
    rows = by_method(
        evaluate(SteeredModel(listener, sae(), "ear.0"), *mute, detector=absent, strengths=(1.0,), draws=0)
    )
    assert (rows["baseline"]["WER"].value, rows["baseline"]["WER, able"].value) == (1, 1)


def test_other_numbers_of_features_are_tried_only_where_the_middle_one_did_best(listener: Transcriber) -> None:
    outcome = run(SteeredModel(listener, {"ear.0": sae(), "ear.1": sae()}), kinds=["shift"], counts=(1, 2), draws=0)
    tried = [row["method"].rpartition(", strength")[0] for row in outcome.report.about["trials"]]
    shifts = [method for method in dict.fromkeys(tried) if method.startswith("shift")]
    assert shifts[:3] == [
        "shift, 2 features at ear.0",
        "shift, 2 features at ear.1",
        "shift, 4 features at ear.0, ear.1",
    ]
    assert outcome.steering is not None and list(outcome.steering.vectors) == ["ear.0"]
    assert shifts[3:] == ["shift, 1 feature at ear.0"]


@pytest.mark.parametrize("kind", ["shift", "scale"])
def test_the_recipe_does_the_same(listener: Transcriber, tmp_path: Path, kind: str) -> None:
    outcome = run(SteeredModel(listener, {"ear.0": sae(), "ear.1": sae()}), kinds=[kind], draws=0)
    assert outcome.steering is not None
    sae().save(tmp_path / "sae")
    base = Recipe.build({"model": "listener", "saes": dict.fromkeys(["ear.0", "ear.1"], str(tmp_path / "sae"))})
    recipe = outcome.recipe(base, tmp_path / "false-alarms.safetensors")
    assert recipe is not None and list(recipe.saes) == ["ear.0"]
    read = Recipe.load(recipe.save(tmp_path / "false-alarms.yaml"))
    assert repr(read.edits_for()) == repr(outcome.steering.edits())


def test_nothing_is_chosen_where_nothing_helps(listener: Transcriber, tmp_path: Path) -> None:
    outcome = run(SteeredModel(listener, sae(), "ear.0"), strengths=(0.1,))
    rows = by_method(outcome)
    assert rows["SAE steering"]["choice"] == "nothing better within the limit"
    assert rows["SAE steering"]["alarms"] == "4 of 4"
    assert outcome.recipe(Recipe(), tmp_path / "v.safetensors") is None
    assert outcome.report.about["left out"]["random features"] == "no SAE steering was chosen"
    assert not list(tmp_path.iterdir())


def test_a_gate_lets_speech_through(listener: Transcriber) -> None:
    def detector() -> Callable[[Tensor], float]:
        # 0.5 to 0.515 of the sounds without speech, 1 and more of those with it
        return lambda audio_N: float(audio_N.mean().abs() * (1 if audio_N.mean() < 0 else 2))

    outcome = run(SteeredModel(listener, sae(), "ear.0"), detector=detector, strengths=(1,), draws=0)
    rows = by_method(outcome)
    # by its own threshold all four are taken for speech, by the one that is chosen on other clips none
    assert rows["Silero VAD gate"]["alarms"] == "4 of 4"
    assert rows["Silero VAD gate"]["choice"] == "its own settings, threshold 0.5"
    assert rows["Silero VAD gate, chosen"]["alarms"] == "0 of 4"
    assert 0.515 < float(rows["Silero VAD gate, chosen"]["choice"].removeprefix("threshold ")) < 1
    assert rows["Silero VAD gate, chosen"]["WER"].value == 0


def test_every_method_has_as_many_candidates(listener: Transcriber) -> None:
    outcome = run(
        SteeredModel(listener, {"ear.0": sae(), "ear.1": sae()}),
        detector=lambda: lambda audio_N: 1.0,
        words=1000,
        draws=0,
    )
    about = outcome.report.about
    methods = [row["method"] for row in about["trials"]]
    tried = {
        "features": sum(method.startswith(("shift", "scale")) for method in methods),
        "activation": sum(method.startswith("difference") for method in methods),
        "gate": sum(method.startswith("threshold") for method in methods),
    }
    # by features: three groups of sites, two kinds, and three other numbers of them, at three strengths (fewer if a
    # number gives no other features)
    assert about["candidates each"] == (3 * 2 + 3) * 3 >= tried["features"]
    assert tried["activation"] == tried["gate"] == about["candidates each"]
    assert about["word errors may rise by"] == "1000 of 3 words (3.3e+04 points)"


def test_only_models_that_write_words() -> None:
    module = nn.Sequential(nn.Linear(4, 4))
    steered = SteeredModel(AudioModel(module, name="lump"), sae(), "0")
    with pytest.raises(FalseAlarmError, match="lump is a model and writes no words"):
        run(steered)


# --- Whisper ---


@pytest.fixture(scope="module")
def tiny() -> Transcriber:
    torch.manual_seed(0)
    module = whisper.model.Whisper(whisper.model.ModelDimensions(80, 1500, 16, 1, 1, 51_865, 448, 16, 1, 1))
    for weight in module.parameters():
        if weight.ndim > 1:
            nn.init.normal_(weight, std=0.3)
    model = wrap_model(module)
    assert isinstance(model, Transcriber)
    return model


def test_whisper_has_rows_of_its_own(tiny: Transcriber, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(false_alarms, "NO_SPEECH_THRESHOLDS", (1e-9, 1e-10))  # every window is skipped
    lossless = SAE(16, 32, "relu")
    lossless.W_dec.data.copy_(torch.cat([torch.eye(16), -torch.eye(16)]))
    lossless.W_enc.data.copy_(lossless.W_dec.T)
    steered = SteeredModel(tiny, lossless, "encoder.0", check=False)
    short = {"sample_len": 3, "without_timestamps": True}
    one = [clips(split, 1) for split in ("train", "valid", "test")]
    # random weights write no "hello": any WER may rise
    outcome = evaluate(
        steered,
        *one,
        words=1000,
        kinds=["scale"],
        counts=[4],
        strengths=[4.0],
        draws=1,
        fit_steps=8,
        options=short,
        detector=absent,
    )
    rows = by_method(outcome)
    assert {"ranked features", "activation steering, fitted"} <= set(rows)
    tried = {row["method"].rpartition(",")[0] for row in outcome.report.about["trials"]}
    assert "fitted vector at encoder.0" in tried
    assert any(method.startswith("gain, ") for method in tried)
    assert {"thresholds, default", "thresholds, chosen"} <= set(rows)
    assert rows["baseline"]["no_speech_prob < 0.5"].value == 1  # one of 51865 tokens, at random
    assert rows["SAE reconstruction"]["words/min"].value == rows["baseline"]["words/min"].value
    assert rows["baseline"]["alarms"] == "1 of 1"
    assert rows["thresholds, chosen"]["choice"] == "no_speech_threshold 1e-09"
    assert rows["thresholds, chosen"]["alarms"] == "0 of 1"
    assert outcome.report.about["options"] == {**defaults(tiny), **short}
