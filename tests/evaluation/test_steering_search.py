"""The rule by made-up trials, the rest by a recogniser of which all is known (`listener`)."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from evaluation.dataset import LabelledSound
from evaluation.separation import separate
from evaluation.steering_search import Limit, Method, Steering, Thresholds, Trial, as_many, choose, climb, ladders
from evaluation.transcripts import Clips, FalseAlarmError
from hooks import Transcriber
from steer import SAE, Scale, Shift, SteeredModel


def sae() -> SAE:
    one = SAE(4, 4, "relu")
    one.W_dec.data.copy_(torch.eye(4))
    one.W_enc.data.copy_(torch.eye(4))
    return one


@pytest.fixture
def steered(listener: Transcriber) -> SteeredModel:
    return SteeredModel(listener, {"ear.0": sae(), "ear.1": sae()})


def clips(split: str = "train") -> Clips:
    """Three sounds of either kind: speech is at +0.5 and the rest at -0.5, a bit more or less."""

    def sounds(level: float, text: str) -> list[LabelledSound]:
        levels = (0.9 * level, level, 1.1 * level)
        return [LabelledSound(torch.full((1600,), one), f"{text} {one}", {"text": text}) for one in levels]

    return Clips(sounds(-0.5, ""), sounds(0.5, "hello"), split)


# --- the rule ---


def method(features: int, strength: float) -> Steering:
    return Steering("shift", {"s": torch.ones(features)}, strength)


POINT = Limit(1, 200)


def test_fewest_false_alarms_within_the_limit() -> None:
    plain = Trial(None, 10 / 200, 0.7)
    best = Trial(method(3, 1), 11 / 200, 0.2)  # exactly one word more
    dear = Trial(method(3, 2), 12 / 200, 0.0)
    mild = Trial(method(1, 1), 8 / 200, 0.3)
    assert choose([mild, best, dear], plain, POINT) is best
    assert choose([mild, best, dear], plain, Limit(0, 200)) is mild
    assert choose([mild, best, dear], plain, Limit(2, 200)) is dear


def test_of_equals_the_cheapest() -> None:
    plain = Trial(None, 0.05, 0.7)
    weak, strong = Trial(method(3, 1), 0.05, 0.2), Trial(method(3, 2), 0.05, 0.2)
    small, better = Trial(method(2, 8), 0.05, 0.2), Trial(method(9, 9), 0.04, 0.2)
    assert choose([strong, weak], plain, POINT) is weak
    assert choose([strong, weak, small], plain, POINT) is small
    assert choose([strong, weak, small, better], plain, POINT) is better


def test_nothing_is_done_where_nothing_helps() -> None:
    plain = Trial(None, 0.05, 0.7)
    assert choose([], plain, POINT) is plain
    assert choose([Trial(method(1, 1), 0.05, 0.7), Trial(method(1, 2), 0.9, 0.0)], plain, POINT) is plain


def test_the_limit_is_in_words() -> None:
    assert Limit.of(None, 199) == Limit(1, 199)  # less than a word is one
    assert Limit.of(None, 999) == Limit(4, 999)
    assert Limit.of(0, 999) == Limit(0, 999)
    assert str(Limit(1, 200)) == "1 of 200 words (0.5 points)"
    plain = Trial(None, 0.3, 0.5)
    for said in (3, 7, 211):
        for more in range(3):
            wer = sum([1 / said] * more, 0.3)
            assert Limit(1, said).allows(wer, plain) is (more <= 1)


def test_as_many_candidates_in_equal_ratios() -> None:
    assert as_many(1, 9, 3) == [1, 3, 9]
    assert as_many(0.8, 0.1, 4) == [0.8, 0.4, 0.2, 0.1]
    assert len(as_many(0.95, 0.02, 45)) == len(set(as_many(0.95, 0.02, 45))) == 45


# --- what training clips tell ---


def test_separate(steered: SteeredModel) -> None:
    found = separate(steered, clips())
    assert list(found) == ["ear.0", "ear.1"]
    one = found["ear.1"]
    assert one.live.tolist() == [0, 1]
    assert one.auroc_F.tolist() == [0, 1, 0.5, 0.5]
    torch.testing.assert_close(one.difference_F, torch.tensor([-0.5, 0.5, 0, 0]))
    torch.testing.assert_close(one.direction_D, torch.tensor([-0.5, 0.5, 0, 0]))
    assert one.shift(2).count_nonzero() == 2
    # feature 0 is there in speech only, whatever the number
    assert one.scale(2).tolist() == [0, 1, 0, 0]


def test_an_sae_that_does_not_fit_is_told(listener: Transcriber) -> None:
    dead, wrong = sae(), sae()
    dead.b_enc.data.fill_(-10)
    wrong.W_dec.data.mul_(-1)
    for one, what in ((dead, "0 of its features fire"), (wrong, "explains -")):
        with pytest.raises(FalseAlarmError, match=f"does not fit site 'ear.0' of listener: .*{what}") as caught:
            separate(SteeredModel(listener, one, "ear.0"), clips())
        assert "\n" not in str(caught.value)


def test_ladders_are_each_site_and_all_together_without_repetition(steered: SteeredModel) -> None:
    found = separate(steered, clips())
    made = ladders(found, ["shift", "scale", "activation"], [1, 2, 300], [2.0, 1.0])
    assert [(one[0].kind, list(one[0].vectors), one[0].features) for one in made] == [
        (kind, sites, count * len(sites))
        for sites in (["ear.0"], ["ear.1"], ["ear.0", "ear.1"])
        for kind, count in (("shift", 1), ("shift", 2), ("scale", 1), ("activation", 0))
    ]
    assert all([step.strength for step in one] == [1.0, 2.0] for one in made)


# --- methods ---


def test_steering_is_the_edits_it_says(steered: SteeredModel, listener: Transcriber) -> None:
    noise_N = torch.full((1600,), -0.5)

    def output() -> Tensor:
        return listener.run(listener.prepare(noise_N))[0, 0]

    shift = Steering("shift", {"ear.0": torch.tensor([-0.5, 0.5, 0, 0])}, 2.0)
    scale = Steering("scale", {"ear.0": torch.tensor([0.0, 1, 0, 0])}, 2.0)
    means = Steering("activation", {"ear.0": torch.tensor([-0.5, 0.5, 0, 0])}, 2.0)
    gain = Steering("gain", {"ear.0": torch.tensor([-0.5, 0.5, 0, 0.5])}, 2.0)
    push = Steering("push", {"ear.0": torch.tensor([-0.5, 0.5, 0, 0])}, 2.0)
    ((edit,),) = shift.edits().values()
    assert isinstance(edit, Shift) and edit.strength == 2.0
    assert scale.edits() == {"ear.0": [Scale([1], 3.0)]}
    assert gain.edits() == {"ear.0": [Scale([0], 0.0), Scale([1, 3], 2.0)]}
    assert (gain.features, push.features) == (3, 0)
    assert str(push) == "fitted vector at ear.0, strength 2"
    steerings = (shift, [-1, 1.5]), (scale, [0, 1.5]), (means, [-1, 1.5]), (gain, [0, 1]), (push, [-1, 1.5])
    for one, expected in steerings:
        with one.applied(steered):
            torch.testing.assert_close(output(), torch.tensor([*expected, 0, 0]).float())
    torch.testing.assert_close(output(), torch.tensor([0, 0.5, 0, 0]))
    assert str(scale) == "scale, 1 feature at ear.0, strength 2"


def test_climbing_ends_where_it_costs_too_much(steered: SteeredModel) -> None:
    pytest.importorskip("whisper", reason="extra whisper")
    pytest.importorskip("jiwer", reason="extra whisper")
    direction_D = torch.tensor([-0.5, 0.5, 0, 0])
    # axis 1 of sounds without speech (0.45, 0.5, 0.55) and with it (0) goes up by half of that; silence is above 0.8
    ladder: list[Method] = [Steering("shift", {"ear.0": direction_D}, s) for s in (0.5, 0.6, 1.0, 2.0, 4.0)]
    trials = climb(steered, ladder, clips("valid"), Trial(None, 0.0, 1.0), Limit(0, 3), {})
    assert [(trial.wer, trial.alarms) for trial in trials] == [
        (0, 1),
        (0, pytest.approx(2 / 3)),
        (0, 0),
        (pytest.approx(1 / 3), math.inf),  # the first word of three is enough to know
    ]


def test_thresholds_are_options_of_the_library(steered: SteeredModel) -> None:
    threshold = Thresholds(0.6, -1.0)
    assert threshold.options == {"no_speech_threshold": 0.6, "logprob_threshold": -1.0}
    assert str(threshold) == "no_speech_threshold 0.6, logprob_threshold -1"
    assert Thresholds(0.4).strength > threshold.strength
