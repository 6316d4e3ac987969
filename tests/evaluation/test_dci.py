"""Informativeness and completeness where the right answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.dci import (
    completeness,
    disentanglement,
    effective_dimensions,
    fit,
    in_sample_r2,
    knn_entropy,
    paper_completeness,
)
from evaluation.folds import folds_of
from evaluation.nulls import rotation

pytest.importorskip("sklearn", reason="extra eval")

CLIPS = 400


@pytest.fixture(scope="module")
def folds() -> np.ndarray:
    return folds_of([""] * CLIPS)


def test_one_dimension_all_dimensions_and_twenty() -> None:
    assert completeness(np.eye(8)) == pytest.approx(1)
    assert disentanglement(np.eye(8)) == pytest.approx(1)
    assert effective_dimensions(np.eye(8)) == pytest.approx(1)
    assert completeness(np.ones((8, 3))) == pytest.approx(0)
    assert effective_dimensions(np.ones((8, 3))) == pytest.approx(8)
    twenty = np.zeros((2048, 1))
    twenty[:20] = 0.3
    assert completeness(twenty)[0] == pytest.approx(1 - np.log(20) / np.log(2048)) == pytest.approx(0.607, abs=5e-4)


def qedr(r: np.ndarray) -> list[float]:
    """Completeness as the paper's reference code writes it."""
    tiny = 1e-12
    ps = np.abs(r) / np.sum(np.abs(r), axis=0)
    return [1 + p.dot(np.log(p + tiny) / np.log(p.shape[0] + tiny)) for p in ps.T]


def test_the_reference_formula() -> None:
    r = np.random.default_rng(0).random((50, 12)) ** 4
    np.testing.assert_allclose(completeness(r), qedr(r), atol=1e-6)
    np.testing.assert_allclose(paper_completeness(r), qedr(r), atol=1e-6)
    weights_N = r.sum(1)
    expected = np.average(qedr(r.T), weights=weights_N)
    assert disentanglement(r) == pytest.approx(expected, abs=1e-6)


def test_order_and_dead_dimensions() -> None:
    r = np.random.default_rng(1).random((64, 5))
    more = np.concatenate([r[::-1], np.zeros((1000, 5))])
    np.testing.assert_allclose(effective_dimensions(more), effective_dimensions(r))
    np.testing.assert_allclose(completeness(r[::-1]), completeness(r))
    # only the base differs
    np.testing.assert_allclose((1 - completeness(more)) * np.log(1064), (1 - completeness(r)) * np.log(64))


def test_a_planted_factor_is_found_in_its_dimension(folds: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(CLIPS, 16))
    f = z[:, :8] + 0.1 * rng.normal(size=(CLIPS, 8))
    plain, turned = fit(z, f, folds), fit(z @ rotation(16), f, folds)
    assert (completeness(plain.weights_NF) >= 0.9).all()
    assert (effective_dimensions(plain.weights_NF) <= 1.5).all()
    assert ((plain.r2() >= 0.95) & (plain.r2() <= 1)).all()
    assert 0.1 <= completeness(turned.weights_NF).mean() <= 0.3
    assert effective_dimensions(turned.weights_NF).mean() == pytest.approx(9, abs=2)
    assert turned.r2().mean() == pytest.approx(0.85, abs=0.06)
    again = fit(z[:, ::-1], f, folds)
    np.testing.assert_allclose(again.r2(), plain.r2(), atol=1e-6)
    dead = fit(np.concatenate([z, np.zeros((CLIPS, 1000))], axis=1), f, folds)
    np.testing.assert_allclose(dead.r2(), plain.r2(), atol=1e-9)


def test_noise_is_predicted_in_sample_only(folds: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(CLIPS, 768)), rng.normal(size=(CLIPS, 8))
    found = fit(x, noise, folds).r2()
    # the mean; what a single one falls below 0 varies by 0.02
    assert np.abs(found.mean()) <= 0.05 and found.max() <= 0.05
    assert in_sample_r2(x, noise).mean() > 0.08
    by_cv = fit(x[:, :100], noise[:, :2], folds, alpha=None)
    assert np.abs(by_cv.r2().mean()) <= 0.05
    # a factor without weights: the paper's formula calls it complete
    assert paper_completeness(np.zeros((768, 1)))[0] == pytest.approx(1)
    assert np.isnan(completeness(np.zeros((768, 1)))[0])


def test_a_smaller_penalty_is_chosen_where_it_pays(folds: np.ndarray) -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(CLIPS, 30))
    f = x @ rng.normal(size=(30, 1)) + 0.5 * rng.normal(size=(CLIPS, 1))
    fixed, chosen = (fit(x, f, folds, alpha=alpha).r2()[0, 0] for alpha in (0.1, None))
    assert chosen > fixed + 0.01


def test_r2_of_resampled_clips(folds: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    z = rng.normal(size=(CLIPS, 4))
    found = fit(z, z[:, :1] + rng.normal(size=(CLIPS, 1)), folds)
    twice = found.r2(np.array([np.ones(CLIPS), np.full(CLIPS, 2.0)]))
    np.testing.assert_allclose(twice[0], twice[1])
    assert found.r2()[0, 0] == pytest.approx(0.5, abs=0.12)


def test_entropy_of_known_densities() -> None:
    rng = np.random.default_rng(0)
    normal = knn_entropy(3 + 10 * rng.normal(size=2000))
    assert normal == pytest.approx(0.5 * np.log2(2 * np.pi * np.e), abs=0.1) == pytest.approx(2.05, abs=0.1)
    assert knn_entropy(rng.random(2000) * np.sqrt(12)) == pytest.approx(1.79, abs=0.1)
    assert knn_entropy(np.repeat(rng.normal(size=200), 2)) is None  # ties
    assert knn_entropy(np.ones(100)) is None


def test_groups_stay_in_one_fold_and_labels_in_all() -> None:
    groups = [f"g{n // 10}" for n in range(100)]
    labels = np.array(["a" if n % 10 < 3 else "b" for n in range(100)])
    fold = folds_of(groups, labels)
    assert all(len(set(fold[start : start + 10])) == 1 for start in range(0, 100, 10))
    assert np.bincount(fold).tolist() == [20] * 5
    alone = folds_of([""] * 100, labels)
    assert [int((alone[labels == "a"] == n).sum()) for n in range(5)] == [6] * 5
    assert len(set(folds_of(["x", "y", "z", "x"]))) == 3
    assert len(set(folds_of(["x"] * 10))) == 5  # a single group does not count
