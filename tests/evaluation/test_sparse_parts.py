"""Parts of sparse codes, macro-F1, and how evenly features fire."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.sparse_parts import active_of, density_of, macro_f1, parts_of


def test_active_features_are_a_share_of_the_codecs_width() -> None:
    """Section A, check 1."""
    listed = {128: (64, 32, 13, 7), 512: (256, 128, 52, 26), 1024: (512, 256, 103, 52)}
    for width, counts in listed.items():
        assert tuple(active_of(width, s) for s in (0.5, 0.25, 0.1, 0.05)) == counts
    assert active_of(30, 0.1) == 3  # 0.1 * 30 as floats is 3.0000000000000004 on the way up
    assert active_of(1280, 0.05) == 64


def test_position_and_magnitude() -> None:
    z = np.array([[0.0, 2.0, 0.0, 1.0, 3.0], [0.0, 0.0, 0.5, 0.0, 0.0]])
    parts = parts_of(z, 3)
    assert (parts["z"] == z).all()
    assert parts["position"].tolist() == [[0, 1, 0, 1, 1], [0, 0, 1, 0, 0]]
    assert parts["magnitude"].tolist() == [[3, 2, 1], [0.5, 0, 0]]
    # magnitudes do not say where, positions do not say how strong
    assert (parts_of(z[:, ::-1], 3)["magnitude"] == parts["magnitude"]).all()
    assert (parts_of(7 * z, 3)["position"] == parts["position"]).all()


def test_macro_f1_is_scikit_learns() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="extra eval")
    rng = np.random.default_rng(0)
    truth, said = rng.integers(0, 4, 60), rng.integers(0, 5, 60)
    assert macro_f1(said, truth)[0] == pytest.approx(metrics.f1_score(truth, said, average="macro"))
    weights = rng.exponential(size=60)
    assert macro_f1(said, truth, weights[None])[0] == pytest.approx(
        metrics.f1_score(truth, said, average="macro", sample_weight=weights)
    )
    # always the majority of 70 to 30: .41, not .5
    assert macro_f1(np.zeros(100, int), np.repeat([0, 1], [70, 30]))[0] == pytest.approx(0.41, abs=0.005)


def firing(rng: np.random.Generator, always: bool = False) -> np.ndarray:
    """5 of 64 features for each of 200 clips, drawn alike; or 4 and the same one each time."""
    active = np.zeros((200, 64), dtype=bool)
    for row in active:
        row[1 + rng.permutation(63)[:4] if always else rng.permutation(64)[:5]] = True
        row[0] |= always
    return active


def test_uniform_firing_stays_in_the_band_and_a_feature_that_always_fires_leaves_it() -> None:
    """Section A, check 8. Bands hold 95 % of what they are of: in 20 draws one is left 4 times or less with a
    probability of 0.997."""
    left = reordered = 0
    for seed in range(20):
        density = density_of(firing(np.random.default_rng(seed)), draws=300)
        assert density is not None
        left += density.leaves(density.uniform)
        other = density_of(firing(np.random.default_rng(seed), always=True), draws=300)
        assert other is not None
        assert other.leaves(other.uniform)
        # the same features in another order: that is as likely as any
        reordered += other.leaves(other.reordered)
    assert max(left, reordered) <= 4


def test_the_order_of_features_changes_shares_alone() -> None:
    """Section A, check 5."""
    rng = np.random.default_rng(0)
    active = firing(rng, always=True)
    one, other = (density_of(active[:, order], draws=50) for order in (np.arange(64), rng.permutation(64)))
    assert one is not None and other is not None
    assert (one.gini, one.busiest, one.dead) == (other.gini, other.busiest, other.dead)
    assert one.share_G.tolist() != other.share_G.tolist()
    assert one.share_G.sum() == pytest.approx(1)


def test_numbers_of_evenness_by_hand() -> None:
    even = density_of(np.ones((3, 40), dtype=bool), draws=2)
    assert even is not None
    assert (even.gini, even.busiest, even.dead) == (0, 0.05, 0)
    single = np.zeros((3, 40), dtype=bool)
    single[:, 7] = True
    alone = density_of(single, draws=2)
    assert alone is not None
    assert (alone.gini, alone.busiest, alone.dead) == (pytest.approx(1 - 1 / 40), 1, 39 / 40)
    assert density_of(np.zeros((3, 40), dtype=bool)) is None
