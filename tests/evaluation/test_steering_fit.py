"""On a Whisper with random weights: width 16, one block each side, the published vocabulary."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evaluation import steering_fit
from evaluation.dataset import LabelledSound
from evaluation.steering_fit import (
    GRID,
    HIGHEST,
    LEVEL_DB,
    SPEED,
    SURE,
    WEIGHT,
    Exercises,
    fit,
    frozen,
    pushed,
    shares,
    varied,
)
from evaluation.transcripts import Clips, FalseAlarmError
from hooks import Clip, wrap_model
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


def window(steered: SteeredModel, sound: LabelledSound) -> Tensor:
    return steered.model.prepare(sound.source)[:, 0]


def test_the_loss_without_speech_is_what_it_says(steered: SteeredModel) -> None:
    exercises = Exercises(steered, SHORT)
    tokens, audio_BN = exercises.tokenizer, window(steered, clips().silent[0])
    with torch.no_grad():
        loss = exercises.silent(audio_BN, True)()
        logits_LV = exercises.logits(audio_BN, [*tokens.sot_sequence, tokens.timestamp_begin])
    share = logits_LV[0].softmax(-1)[tokens.no_speech].double()
    over_words = logits_LV[-1, tokens.eot] - logits_LV[-1, : tokens.eot].logsumexp(0)
    expected = (3 - (share / (1 - share)).log()).clamp(min=0) / 2 + (3 - over_words).clamp(min=0)
    # float32's rounding in a sum over 51865 tokens
    torch.testing.assert_close(loss, expected.float(), rtol=1e-4, atol=1e-4)
    assert exercises.prompt(False)[-1] == tokens.no_timestamps != exercises.prompt(True)[-1]


@pytest.mark.parametrize("timed", [True, False])
def test_the_loss_with_speech_is_what_the_edit_takes_off_the_words(steered: SteeredModel, timed: bool) -> None:
    exercises = Exercises(steered, SHORT)
    tokens, audio_BN = exercises.tokenizer, window(steered, clips().speech[0])
    words = tokens.encode(f" {steered.model.transcribe(audio_BN[0], **SHORT)}")
    answers = words if timed else [*words, tokens.eot]
    assert words

    def odds() -> tuple[Tensor, Tensor]:
        logits_LV = exercises.logits(audio_BN, [*exercises.prompt(timed), *words])
        start = len(exercises.prompt(timed)) - 1
        shares_LV = logits_LV[start : start + len(answers), : tokens.eot + 1].double().softmax(-1)
        share_L = torch.stack([shares_LV[place, token] for place, token in enumerate(answers)])
        share = logits_LV[0].double().softmax(-1)[tokens.no_speech]
        return (share_L / (1 - share_L)).log(), (share / (1 - share)).log()

    v_F = torch.full((2 * WIDTH,), -1.0)
    with torch.no_grad():
        loss = exercises.speech(audio_BN, timed)
        before_L, no_speech = odds()
        unedited = loss()
        with pushed(steered, {"encoder.1": v_F}, "features"):
            after_L, no_speech_then = odds()
            edited = loss()
    lost = (before_L.clamp(max=SURE) - after_L).clamp(min=0).sum()
    assert lost > 0
    # as above
    torch.testing.assert_close(unedited.double(), (3 + no_speech).clamp(min=0) / 2, rtol=1e-4, atol=1e-3)
    expected = (3 + no_speech_then).clamp(min=0) / 2 + WEIGHT * lost
    torch.testing.assert_close(edited.double(), expected, rtol=1e-4, atol=1e-3)


def test_of_a_subset_as_many_are_drawn_as_the_root_of_its_size() -> None:
    sounds = [LabelledSound(torch.zeros(1), "", {"subset": subset}) for subset in "aaaaaaaaab"]
    share_N = shares(sounds)
    assert share_N.sum() == pytest.approx(1)
    assert share_N[:9].sum() == pytest.approx(3 * share_N[9])


def test_clips_come_at_another_speed_and_level_every_time() -> None:
    wave, rng = torch.sin(2 * torch.pi * 500 * torch.arange(16_000) / 16_000), np.random.default_rng(0)
    some = [varied(wave, 16_000, rng) for _ in range(50)]
    speeds = np.array([one.sample_rate / 16_000 for one in some])
    levels_db = 20 * np.log10([float(one.waveform.abs().max()) for one in some])
    assert 1 / SPEED <= speeds.min() < 0.9 and 1.1 < speeds.max() <= SPEED + 1e-4
    assert -LEVEL_DB <= levels_db.min() < -4 and 4 < levels_db.max() <= LEVEL_DB
    assert torch.equal(varied(Clip(wave, 8000), 16_000, rng).waveform.sign(), wave[None].sign())


def mean_loss(steered: SteeredModel, vectors: dict[str, Tensor], what: steering_fit.What) -> float:
    exercises, some = Exercises(steered, SHORT), clips()
    asked = [exercises.silent(window(steered, sound), True) for sound in some.silent]
    asked += [exercises.speech(window(steered, sound), True) for sound in some.speech]
    with torch.no_grad(), pushed(steered, vectors, what):
        return sum(float(loss()) for loss in asked) / len(asked)


@pytest.mark.parametrize("what", ["features", "activation"])
def test_a_fit_lowers_its_loss_and_leaves_nothing_behind(
    steered: SteeredModel, what: steering_fit.What, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(steering_fit.RATE, what, 0.05)  # a few steps shall be enough
    weight = next(steered.model.module.parameters())
    before = mean_loss(steered, steering_fit.zeros(steered, clips(), what), what)
    vectors = fit(steered, clips(), SHORT, what, steps=8)
    # 11.3 nats to begin with, which 8 steps bring to 10.7 and 11.05
    assert mean_loss(steered, vectors, what) < before - 0.2
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


def test_a_single_step_counts(steered: SteeredModel) -> None:
    assert all(vector.any() for vector in fit(steered, clips(), SHORT, "activation", steps=1).values())


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
        Exercises(SteeredModel(model(1000), sae(), "encoder.0", check=False), SHORT)
