"""On a Whisper with random weights: width 16, one block each side, the published vocabulary."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evaluation import steering_fit
from evaluation.labels import LabelledSound
from evaluation.steering_fit import GRID, HIGHEST, Exercises, fit, frozen, pushed
from evaluation.transcripts import Clips, FalseAlarmError
from hooks import wrap_model
from hooks.families.whisper import Whisper
from steer import SAE, Scale, SteeredModel

whisper = pytest.importorskip("whisper", reason="extra whisper")

WIDTH, SITES = 16, ("encoder.0", "encoder.1")
SHORT: dict[str, Any] = {"language": "en", "temperature": 0.0, "sample_len": 3, "without_timestamps": True}


def model(vocabulary: int = 51_865) -> Whisper:
    torch.manual_seed(0)
    module = whisper.model.Whisper(
        whisper.model.ModelDimensions(80, 1500, WIDTH, 1, len(SITES), vocabulary, 448, WIDTH, 1, 1)
    )
    for weight in module.parameters():
        if weight.ndim > 1:
            nn.init.normal_(weight, std=0.3)
    wrapped = wrap_model(module.eval())
    assert isinstance(wrapped, Whisper)
    return wrapped


def sae() -> SAE:
    one = SAE(WIDTH, 2 * WIDTH, "relu")
    one.W_dec.data.copy_(torch.cat([torch.eye(WIDTH), -torch.eye(WIDTH)]))
    one.W_enc.data.copy_(one.W_dec.T)
    return one


@pytest.fixture
def steered() -> SteeredModel:
    return SteeredModel(model(), {site: sae() for site in SITES}, check=False)


def clips() -> Clips:
    generator = torch.Generator().manual_seed(0)

    def sounds(level: float, text: str) -> list[LabelledSound]:
        waves = [level * torch.randn(8000, generator=generator) for _ in range(2)]
        return [LabelledSound(wave, f"{level} {i}", {"text": text}) for i, wave in enumerate(waves)]

    return Clips(sounds(0.01, ""), sounds(0.3, "Hello!"), "train")


def test_losses_are_what_they_say(steered: SteeredModel) -> None:
    exercises = Exercises(steered, clips(), SHORT)
    tokens = exercises.tokenizer
    source = exercises.clips.silent[0].source
    with torch.no_grad():
        loss = exercises.silent(0, True)
        logits_LV = exercises.logits(source, [*tokens.sot_sequence, tokens.timestamp_begin])
    share = logits_LV[0].softmax(-1)[tokens.no_speech].double()
    over_words = logits_LV[-1, tokens.eot] - logits_LV[-1, : tokens.eot].logsumexp(0)
    expected = (3 - (share / (1 - share)).log()).clamp(min=0) / 2 + (3 - over_words).clamp(min=0)
    # float32's rounding in a sum over 51865 tokens
    torch.testing.assert_close(loss, expected.float(), rtol=1e-4, atol=1e-4)
    assert exercises.prompt(False)[-1] == tokens.no_timestamps != exercises.prompt(True)[-1]

    exercises.texts[0] = "one two"
    words = tokens.encode(" one two")
    with torch.no_grad():
        loss = exercises.speech(0, False)
        logits_LV = exercises.logits(exercises.clips.speech[0].source, [*exercises.prompt(False), *words])
    behind_LV = logits_LV[-len(words) - 1 :, : tokens.eot + 1].log_softmax(-1)
    spoken = -sum(behind_LV[i, token] for i, token in enumerate([*words, tokens.eot]))
    assert float(loss) >= 5 * float(spoken) - 1e-3
    assert float(loss) <= 5 * float(spoken) + 1.5 + 0.5 * max(0.0, float(exercises.odds(logits_LV[0]))) + 1e-3


def test_a_speech_clip_is_asked_about_its_own_unedited_words(steered: SteeredModel) -> None:
    exercises = Exercises(steered, clips(), SHORT)
    said = exercises.text(1)
    assert said == exercises.texts[1] == str(steered.model.transcribe(exercises.clips.speech[1].source, **SHORT))


def mean_loss(steered: SteeredModel, vectors: dict[str, Tensor], what: steering_fit.What) -> float:
    exercises = Exercises(steered, clips(), SHORT)
    total = 0.0
    for index in range(2):
        exercises.text(index)
        with torch.no_grad(), pushed(steered, vectors, what):
            total += float(exercises.silent(index, True) + exercises.speech(index, True))
    return total


@pytest.mark.parametrize("what", ["features", "activation"])
def test_a_fit_lowers_its_loss_and_leaves_nothing_behind(
    steered: SteeredModel, what: steering_fit.What, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(steering_fit.RATE, what, 0.05)  # a few steps shall be enough
    weight = next(steered.model.module.parameters())
    before = mean_loss(steered, steering_fit.zeros(steered, clips(), what), what)
    vectors = fit(steered, clips(), SHORT, what, steps=8)
    # about 300 nats to begin with
    assert mean_loss(steered, vectors, what) < before - 4
    assert weight.requires_grad and weight.grad is None
    assert all(parameter.grad is None for one in steered.saes.values() for parameter in one.parameters())  # type: ignore[attr-defined]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in steered.model.module.modules())
    for vector in vectors.values():
        assert vector.shape == ((2 * WIDTH,) if what == "features" else (WIDTH,))
        if what == "features":
            assert torch.equal(vector, (vector / GRID).round() * GRID)
            assert vector.min() >= -1 and vector.max() <= HIGHEST - 1


def test_the_same_seed_gives_the_same_fit(steered: SteeredModel) -> None:
    first, second = (fit(steered, clips(), SHORT, steps=3) for _ in range(2))
    assert all(torch.equal(first[site], second[site]) for site in SITES)


def test_a_heavy_penalty_leaves_every_factor_at_one(steered: SteeredModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steering_fit, "PENALTY", 1.0)
    assert not any(vector.any() for vector in fit(steered, clips(), SHORT, steps=5).values())


def test_pushing_is_the_edit_that_it_stands_for(steered: SteeredModel) -> None:
    audio_BCN = 0.1 * torch.randn(1, 1, 8000)
    v_F = torch.zeros(2 * WIDTH)
    v_F[[3, 20]] = torch.tensor([-1.0, 2.0])
    with torch.no_grad(), pushed(steered, {"encoder.0": v_F}, "features"):
        fitted = steered.run(audio_BCN)
    with steered.edit({"encoder.0": [Scale([3], 0.0), Scale([20], 3.0)]}):
        edited = steered.run(audio_BCN)
    torch.testing.assert_close(fitted, edited, rtol=1e-4, atol=1e-5)  # two orders of the same sums
    assert not torch.allclose(fitted, steered.run(audio_BCN), atol=1e-2)


def test_weights_that_were_frozen_stay_so() -> None:
    module = nn.Linear(2, 2)
    module.bias.requires_grad_(False)
    with frozen(module):
        assert not module.weight.requires_grad
    assert module.weight.requires_grad and not module.bias.requires_grad


def test_another_vocabulary_is_one_line() -> None:
    with pytest.raises(FalseAlarmError, match="1000 tokens are not Whisper's vocabulary"):
        Exercises(SteeredModel(model(1000), sae(), "encoder.0", check=False), clips(), SHORT)
