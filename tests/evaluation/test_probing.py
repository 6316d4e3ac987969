"""Probes, chance and curves, against arithmetic by hand and exact enumeration."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from evaluation.probing import Answers, C, Curve, Weights, ask, falling, information, interval, resampled

pytest.importorskip("sklearn", reason="extra eval")


def answers(says: str, truth: str) -> Answers:
    said, so = (np.array([letter == "1" for letter in text]) for text in (says, truth))
    return Answers(np.arange(len(so)), said, so)


def test_balanced_accuracy_is_the_mean_of_the_two_shares() -> None:
    one = answers("11000001", "11110000")
    assert one.balanced_accuracy(Weights.equal(8)) == pytest.approx([(2 / 4 + 3 / 4) / 2])
    # a clip of weight 0 does not count
    weights = Weights(np.array([[1, 1, 1, 1, 1, 1, 1, 0]]), np.zeros((1, 2, 2, 2)))
    assert one.balanced_accuracy(weights) == pytest.approx([(2 / 4 + 3 / 3) / 2])
    # however rare: always saying no is a guess
    assert answers("0" * 50, "1" + "0" * 49).balanced_accuracy(Weights.equal(50)) == pytest.approx([0.5])


@pytest.mark.parametrize("said", [0, 1, 3, 6, 10])
def test_chance_is_what_95_percent_of_all_deals_stay_under(said: int) -> None:
    truth = "111" + "0" * 7
    scores = []
    for chosen in combinations(range(10), said):
        deal = "".join("1" if index in chosen else "0" for index in range(10))
        scores.append(float(answers(deal, truth).balanced_accuracy(Weights.equal(10))[0]))
    bound = answers("1" * said + "0" * (10 - said), truth).chance()
    assert np.mean(np.array(scores) <= bound + 1e-9) >= 0.95
    # and it is the lowest such score
    below = max((score for score in scores if score < bound - 1e-9), default=None)
    assert below is None or np.mean(np.array(scores) <= below + 1e-9) < 0.95


def test_a_probe_reads_what_is_there_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    y_N, train_N = np.arange(120) % 2, np.arange(120) < 60
    x_ND = rng.standard_normal((120, 6)).astype(np.float32)
    assert not ask(x_ND, y_N, train_N).above_chance
    x_ND[:, 3] += 20 * y_N
    assert ask(x_ND, y_N, train_N).balanced_accuracy(Weights.equal(120)) == pytest.approx([1.0])


def test_clips_without_the_kind_are_neither_fitted_nor_asked() -> None:
    y_N = np.array([1, 0, 1, 0, -1, -1, 1, 0, -1])
    x_ND = np.where(y_N[:, None] == -1, np.nan, y_N[:, None] * 2.0 + 1)
    found = ask(x_ND, y_N, np.arange(9) < 5)
    assert found.clips_M.tolist() == [6, 7]
    assert found.says_M.tolist() == found.is_M.tolist() == [True, False]


def test_a_rare_concept_is_not_lost_to_the_majority() -> None:
    rng = np.random.default_rng(1)
    y_N, train_N = (np.arange(400) % 20 == 0).astype(int), np.arange(400) % 2 == np.arange(400) // 20 % 2
    x_ND = rng.standard_normal((400, 1)) + 2 * y_N[:, None]
    # two normals 2 apart: the best balanced accuracy is 0.84, and a probe that only says no has 0.5
    assert ask(x_ND, y_N, train_N).balanced_accuracy(Weights.equal(400))[0] > 0.7


def test_rounding_is_not_read() -> None:
    y_N, train_N = np.arange(40) % 2, np.arange(40) < 20
    x_ND = np.full((40, 2), 3.0)
    x_ND[:, 0] += 2e-6 * y_N  # some float32 steps at 3.0
    found = ask(x_ND, y_N, train_N)
    assert not found.above_chance
    x_ND[:, 0] += 1e-3 * y_N
    assert ask(x_ND, y_N, train_N).above_chance


def test_falling_is_isotonic_regression() -> None:
    from sklearn.isotonic import IsotonicRegression

    y_XK = np.random.default_rng(0).standard_normal((20, 9))
    expected = [IsotonicRegression(increasing=False).fit_transform(np.arange(9), y_K) for y_K in y_XK]
    assert falling(y_XK) == pytest.approx(np.array(expected))


def curve(accuracy: list[float], counts: tuple[int, ...] = (0, 1, 10, 100)) -> Curve:
    return Curve(counts, np.array([accuracy]), np.full(len(counts), 0.6))


def test_enough_is_the_first_count_at_chance() -> None:
    assert curve([1.0, 0.9, 0.55, 0.5]).needed(200) == pytest.approx([10 / 200])
    assert curve([1.0, 0.9, 0.8, 0.7]).needed(200) == pytest.approx([1.0])
    assert not curve([1.0, 0.9, 0.8, 0.7]).reached
    # a dip that more features undo is luck: together the two are above chance
    assert curve([1.0, 0.55, 0.9, 0.5]).needed(200) == pytest.approx([100 / 200])


def test_area_is_over_the_logarithm() -> None:
    assert curve([1.0, 1.0, 1.0, 1.0]).area() == pytest.approx([1.0])
    assert curve([1.0, 0.5, 0.5, 0.5]).area() == pytest.approx([0.5])
    assert curve([1.0, 1.0, 0.5, 0.5]).area() == pytest.approx([(0.75 + 0.5) / 2])


def test_intervals_hold_the_estimate_and_narrow_with_clips() -> None:
    widths = []
    for clips in (20, 2000):
        one = answers("1110" * (clips // 4), "1100" * (clips // 4))
        found = interval(one.balanced_accuracy(resampled([""] * clips, 500)), clips)
        assert found.value == pytest.approx(0.75)
        assert found.low < found.value < found.high
        widths.append(found.high - found.low)
    # as 1 / sqrt(clips): ten times, but for the scatter of 500 rounds
    assert widths[0] / widths[1] == pytest.approx(10, rel=0.3)


def test_information_has_chance_taken_off() -> None:
    before_X = np.array([1.0, 0.9, 0.8])
    assert information(np.array([0.5, 0.9, 0.65]), before_X) == pytest.approx([0.0, 1.0, 0.5])
    # a probe below chance knows less than nothing by luck
    assert information(np.array([0.4]), np.array([1.0])) == pytest.approx([-0.2])


@pytest.mark.parametrize(("right", "clips"), [(20, 20), (0, 20), (15, 20), (3, 40)])
def test_the_interval_of_one_class_is_jeffreys(right: int, clips: int) -> None:
    """The other class is large and all right: its half of the mean hardly varies."""
    stats = pytest.importorskip("scipy.stats", reason="extra eval")
    large = 20_000
    says, truth = "1" * right + "0" * (clips - right) + "0" * large, "1" * clips + "0" * large
    weights = resampled([""] * (clips + large), 2000).of("rain")
    shares_X = 2 * answers(says, truth).balanced_accuracy(weights) - 1
    found = interval(shares_X, clips)
    low, high = stats.beta(right + 0.5, clips - right + 0.5).ppf([0.025, 0.975])
    assert found.value == pytest.approx(right / clips)
    # percentiles of 2000 draws
    assert (found.low, found.high) == (pytest.approx(min(low, found.value), abs=0.02), pytest.approx(high, abs=0.02))


def test_a_share_of_100_percent_has_an_interval() -> None:
    one = answers("1" * 10 + "0" * 10, "1" * 10 + "0" * 10)
    weights = resampled([""] * 20, 1000).of("rain")
    kept = interval(information(one.balanced_accuracy(weights), one.balanced_accuracy(weights, before=True)), 20)
    assert kept.value == kept.high == 1.0 or kept.high > 1.0
    assert 0.6 < kept.low < 0.95
    many = answers("1" * 500 + "0" * 500, "1" * 500 + "0" * 500)
    weights = resampled([""] * 1000, 1000).of("rain")
    assert interval(many.balanced_accuracy(weights), 1000).low > 0.99


def test_concepts_have_quarter_clips_of_their_own() -> None:
    weights = resampled([""] * 4, 10)
    assert np.array_equal(weights.of("rain").prior_XCBA, weights.of("rain").prior_XCBA)
    assert not np.array_equal(weights.of("rain").prior_XCBA, weights.of("wind").prior_XCBA)
    assert not weights.of("rain").prior_XCBA[0].any()
    assert weights.of("rain").clips_XN is weights.clips_XN


def test_clips_of_a_speaker_rise_and_fall_together() -> None:
    """Ten speakers of forty clips each, of whom half are right throughout: so many clips tell little more than ten."""
    says = "".join(("1" if speaker % 2 else "0") * 40 for speaker in range(10)) + "0" * 400
    one = answers(says, "1" * 400 + "0" * 400)
    widths = []
    for speakers in ([""] * 800, [f"s{index // 40}" for index in range(400)] + [""] * 400):
        found = interval(one.balanced_accuracy(resampled(speakers, 1000).of("rain")), 800)
        assert found.value == pytest.approx(0.75)
        widths.append(found.high - found.low)
    assert widths[1] > 3.5 * widths[0]


def test_more_columns_than_clips_give_the_answers_of_all_columns() -> None:
    """The probe in the span of the clips is the probe in all columns."""
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(4)
    y_N, train_N = np.arange(80) % 2, np.arange(80) < 40
    x_ND = rng.standard_normal((80, 90)) + 0.4 * y_N[:, None]
    scaled_ND = (x_ND - x_ND[train_N].mean(0)) / x_ND[train_N].std(0)
    probe = LogisticRegression(C=C, class_weight="balanced", solver="newton-cholesky", max_iter=200)
    probe.fit(scaled_ND[train_N], y_N[train_N])
    expected_M = probe.predict(scaled_ND[~train_N]) == 1
    assert 0.5 < (expected_M == (y_N[~train_N] == 1)).mean() < 1  # some answers are wrong: they say more than rights
    assert ask(x_ND, y_N, train_N).says_M.tolist() == expected_M.tolist()
