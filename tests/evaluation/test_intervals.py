from __future__ import annotations

import math

import numpy as np
import pytest

from evaluation.intervals import clustered_bootstrap, clustered_share, share_interval
from evaluation.report import Share, bootstrap


@pytest.mark.parametrize(
    ("hits", "count", "exact", "low", "high"),
    [
        (10, 10, False, 0.7225, 1.0),
        (0, 10, False, 0.0, 0.2775),
        (5, 10, False, 0.2366, 0.7634),
        (10, 10, True, 0.6915, 1.0),
        (0, 10, True, 0.0, 0.3085),
        (5, 10, True, 0.1871, 0.8129),
        (81, 263, True, 0.2527, 0.3676),
    ],
)
def test_intervals_of_shares_as_tables_have_them(hits: int, count: int, exact: bool, low: float, high: float) -> None:
    share = share_interval(hits, count, exact)
    assert isinstance(share, Share)
    assert (share.value, share.count) == (hits / count, count)
    assert (share.low, share.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_a_share_of_nothing_is_not_known() -> None:
    assert math.isnan(share_interval(0, 0).value)
    assert clustered_share([], []).count == 0


def test_values_of_one_cluster_are_drawn_together() -> None:
    rng = np.random.default_rng(0)
    middles = rng.normal(size=30)
    values, clusters = np.repeat(middles, 20), np.repeat(np.arange(30), 20)
    clustered = clustered_bootstrap(values.tolist(), clusters.tolist())
    # twenty equal values of a cluster say no more than one of them
    alone = bootstrap(middles.tolist())
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
