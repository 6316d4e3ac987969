from __future__ import annotations

import math

import numpy as np
import pytest

from evaluation.intervals import SpokenClip, all_or_none, clustered_bootstrap, clustered_share, draws_of, mean_share
from evaluation.report import Share


def test_intervals_of_all_and_of_none_as_tables_have_them() -> None:
    share = all_or_none(1.0, 10)
    assert isinstance(share, Share)
    assert (share.value, share.high, share.count) == (1.0, 1.0, 10)
    assert share.low == pytest.approx(0.6915, abs=1e-4)
    none = all_or_none(0.0, 10)
    assert (none.value, none.low, none.high) == (0.0, 0.0, pytest.approx(0.3085, abs=1e-4))


def test_a_share_of_nothing_is_not_known() -> None:
    assert math.isnan(all_or_none(0.0, 0).value)
    assert clustered_share([], []).count == 0


def test_values_of_one_cluster_are_drawn_together() -> None:
    rng = np.random.default_rng(0)
    middles = rng.normal(size=30)
    values, clusters = np.repeat(middles, 20), np.repeat(np.arange(30), 20)
    clustered = clustered_bootstrap(values.tolist(), clusters.tolist())
    # twenty equal values of a cluster say no more than one of them
    alone = clustered_bootstrap(middles.tolist(), range(len(middles)))
    assert clustered.count == 30
    assert clustered.value == pytest.approx(alone.value)
    assert clustered.high - clustered.low == pytest.approx(alone.high - alone.low, rel=0.1)
    assert clustered == clustered_bootstrap(values.tolist(), clusters.tolist())


def test_what_is_not_finite_does_not_count() -> None:
    found = clustered_bootstrap([1.0, math.nan, 3.0], ["a", "a", "b"], np.median)
    assert (found.value, found.count) == (2.0, 2)
    assert clustered_bootstrap([math.nan], ["a"]).count == 0


def test_shares_without_spread_get_the_exact_interval_of_the_clusters() -> None:
    clips = [f"{index // 4}" for index in range(40)]
    everything = clustered_share([True] * 40, clips)
    assert (everything.value, everything.count) == (1.0, 10)
    assert everything.low == pytest.approx(0.6915, abs=1e-4)
    nothing = clustered_share([False] * 40, clips)
    assert (nothing.value, nothing.high) == (0.0, pytest.approx(0.3085, abs=1e-4))
    some = clustered_share([True] * 38 + [False] * 2, clips)
    assert some.value == 0.95
    assert some.low < 0.95 < some.high
    assert clustered_share([True, False], ["a", "a"]) == Share(0.5, 0.0, 1.0, 1)


# --- speakers ---


def spoken(speakers: list[str]) -> list[SpokenClip]:
    return [SpokenClip(str(index), speaker) for index, speaker in enumerate(speakers)]


def width(values: np.ndarray, speakers: list[str] | None) -> float:
    found = clustered_bootstrap(values.tolist(), spoken(speakers) if speakers else list(range(len(values))))
    assert found.count == len(values)
    assert found.value == pytest.approx(values.mean())
    return found.high - found.low


def test_clips_of_one_speaker_are_drawn_together() -> None:
    middles = np.random.default_rng(0).normal(size=25)
    speakers = [f"s{index // 16}" for index in range(400)]
    values = np.repeat(middles, 16)
    # sixteen equal clips of a speaker say no more than one of them
    alone = clustered_bootstrap(middles.tolist(), range(len(middles)))
    assert width(values, speakers) == pytest.approx(alone.high - alone.low, rel=0.1)
    # as if they were 400 speakers: too narrow by a factor of 4
    assert width(values, None) == pytest.approx((alone.high - alone.low) / 4, rel=0.15)


def test_of_one_speaker_the_clips_vary() -> None:
    values = np.random.default_rng(1).normal(size=60)
    assert width(values, ["LJ"] * 60) == pytest.approx(width(values, None), rel=0.1)
    assert width(values, [""] * 60) == width(values, None)


def test_draws_by_speaker_then_by_clip() -> None:
    draws = draws_of(["a", "a", "a", "", "", "b"], 4000, np.random.default_rng(0))
    assert draws.shape == (4000, 6)
    assert draws.mean(0) == pytest.approx(np.ones(6), abs=0.12)
    # four groups are drawn: of "a" three clips each time, which share their number
    assert set(draws[:, :3].sum(1).tolist()) == {0, 3, 6, 9, 12}
    assert (draws[:, :3].sum(1) // 3 + draws[:, 3:].sum(1)).tolist() == [4] * 4000
    # clips of a speaker vary too
    assert len({tuple(row) for row in draws[:, :3].tolist()}) > 10


def test_shares_take_speakers_too() -> None:
    flags, clips = [index < 200 for index in range(400)], list(range(400))
    speakers = [f"s{index // 40}" for index in range(400)]
    plain, by_speaker = clustered_share(flags, clips), clustered_share(flags, spoken(speakers))
    assert (plain.value, by_speaker.value) == (0.5, 0.5)
    # five of ten speakers against 200 of 400 clips
    assert by_speaker.high - by_speaker.low > 4 * (plain.high - plain.low)


def test_means_of_shares_without_spread_get_the_exact_interval() -> None:
    assert mean_share([1.0] * 10, list(range(10))) == all_or_none(1.0, 10)
    assert mean_share([0.0] * 10, list(range(10))) == all_or_none(0.0, 10)
    some = mean_share([1.0, 0.5] * 5, list(range(10)))
    assert (some.value, some.count) == (0.75, 10)
    assert 0.5 < some.low < 0.75 < some.high < 1
