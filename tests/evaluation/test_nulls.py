"""Shuffled labels, untrained SAEs, principal components, and intervals over groups."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evaluation.nulls import (
    change_in_share,
    clip_weights,
    null_of,
    pca,
    random_sae,
    rotation,
    share_right,
    shuffled,
)
from evaluation.report import Interval
from steer import SAE


def test_clips_are_shuffled_one_by_one_where_a_group_has_several_labels() -> None:
    labels = np.array(["a", "b"] * 50)
    drawn = shuffled(labels, ["x"] * 50 + ["y"] * 50, np.random.default_rng(0))
    assert sorted(drawn) == sorted(labels) and (drawn != labels).any()
    assert len(set(drawn[:50])) == 2


def test_groups_of_one_label_stay_together() -> None:
    groups = [f"speaker {n // 5}" for n in range(50)]
    labels = np.array(["a" if n < 25 else "b" for n in range(50)])
    drawn = shuffled(labels, groups, np.random.default_rng(1))
    assert all(len(set(drawn[start : start + 5])) == 1 for start in range(0, 50, 5))
    assert sorted(drawn) == sorted(labels) and (drawn != labels).any()


def test_a_null_says_what_touches_it() -> None:
    null = null_of([0.1] * 19 + [0.3])
    assert null is not None and (null.mean, null.count) == (pytest.approx(0.11), 20)
    assert null.p95 == pytest.approx(0.11)  # between the 19th and the 20th
    assert null.reached_by(Interval(0.2, 0.1, 0.3, 9)) and not null.reached_by(Interval(0.3, 0.2, 0.4, 9))
    assert null_of([]) is None


def test_intervals_are_over_groups_only_where_there_are_five() -> None:
    values = np.repeat(np.arange(6.0), 20)
    few, many = ([f"{n // size}" for n in range(120)] for size in (60, 20))
    weights = [clip_weights(groups) for groups in (few, many)]
    over_clips, over_groups = ((w_XN @ values / w_XN.sum(1)).std() for w_XN in weights)
    assert over_groups > 2 * over_clips
    # of 120 clips the standard error is sd / sqrt(120), within a tenth in 1000 draws
    assert over_clips == pytest.approx(values.std() / np.sqrt(120), rel=0.1)


def test_all_right_has_an_interval_too() -> None:
    result = share_right(np.ones(20), clip_weights([""] * 20))
    assert result.value == result.high == 1.0
    # Jeffreys' lower bound for 20 of 20, one-sided 2.5 %: 0.88
    assert result.low == pytest.approx(0.883, abs=0.02)


def test_two_clips_that_are_lost_are_no_difference_yet() -> None:
    before, after = np.ones(80, dtype=bool), np.arange(80) >= 2
    few = change_in_share(after, before, clip_weights([""] * 80))
    assert few.value == pytest.approx(-2 / 80) and few.low < few.value < few.high
    # by the sign test 2 of 2 has p = 0.5, 8 of 8 has p = 0.008
    assert few.high > -0.01
    many = change_in_share(np.arange(80) >= 8, before, clip_weights([""] * 80))
    assert many.high < -0.02
    same = change_in_share(before, before, clip_weights([""] * 80))
    assert same.value == 0 and same.low < 0 < same.high


def test_first_weights_with_the_mean_taken_off() -> None:
    like = SAE(8, 32, "topk", 4)
    mean_D = np.arange(8.0)
    state = torch.random.get_rng_state()
    one, same, other = (random_sae(like, mean_D, seed) for seed in (0, 0, 1))
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.equal(one.W_enc, same.W_enc) and not torch.equal(one.W_enc, other.W_enc)
    assert (one.d_in, one.d_sae, one.k) == (8, 32, 4)
    assert not one.encode(torch.arange(8.0)).any()  # nothing is left of the mean
    assert (one.encode(torch.randn(5, 8)) > 0).sum() <= 20


def test_components_keep_what_varies() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3)) @ rng.normal(size=(3, 10)) + 5
    all_of_it = pca(x, 8)
    assert all_of_it.axes.shape == (3, 10)
    np.testing.assert_allclose(all_of_it(x) @ all_of_it.axes + all_of_it.mean, x, atol=1e-9)
    spread = all_of_it(x).var(0)
    assert (np.diff(spread) <= 0).all()
    np.testing.assert_allclose(pca(x, 1)(x)[:, 0], all_of_it(x)[:, 0], atol=1e-9)


def test_a_rotation_loses_nothing() -> None:
    turn = rotation(16)
    np.testing.assert_allclose(turn @ turn.T, np.eye(16), atol=1e-12)
    assert np.abs(turn).max() < 0.95
