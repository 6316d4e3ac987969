"""Fits from sums over time equal fits on the whole matrix of lags, and mTRFpy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evaluation.trf import Lags, Moments, correlation, fit, lagged_gram, lagged_products, moments, predict, summed

RATE = 128
SPANS = [(0.0, 0.5), (-0.1, 0.4), (0.1, 0.3), (-0.3, -0.1)]


def lag_matrix(s_T: np.ndarray, lags: Lags) -> np.ndarray:
    """[T, L] by its definition."""
    columns = []
    for lag in range(lags.first, lags.first + lags.count):
        column = np.zeros(len(s_T))
        for t in range(len(s_T)):
            if 0 <= t - lag < len(s_T):
                column[t] = s_T[t - lag]
        columns.append(column)
    return np.stack(columns, 1)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def test_lags_at_a_rate() -> None:
    assert Lags.between(0, 0.5, 128) == Lags(0, 65)
    assert Lags.between(-0.1, 0.3, 64) == Lags(-7, 28)  # -6.4 down, 19.2 up
    assert Lags(-1, 3).seconds(2).tolist() == [-0.5, 0.0, 0.5]


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("length", [300, 2500])  # in one block of the FFT, and in several
def test_products_are_those_of_the_matrix(span: tuple[float, float], length: int) -> None:
    lags = Lags.between(*span, RATE)
    s_FT, r_CT = noise(3, length), noise(2, length, seed=1)
    made = lagged_products(torch.from_numpy(s_FT), torch.from_numpy(r_CT), lags)
    matrices = [lag_matrix(s_T, lags) for s_T in s_FT]
    for f, c in np.ndindex(3, 2):
        # rounding of the FFT, beside sums of some tens
        np.testing.assert_allclose(made[f, c], matrices[f].T @ r_CT[c], atol=1e-9)
    gram = lagged_gram(torch.from_numpy(s_FT[0]), torch.from_numpy(s_FT[1:]), lags)
    for index in (0, 1):
        np.testing.assert_allclose(gram[index], matrices[0].T @ matrices[index + 1], atol=1e-9)


def test_predictions_and_their_correlation() -> None:
    lags = Lags(-3, 9)
    stimuli, response = torch.from_numpy(noise(2, 700)), torch.from_numpy(noise(4, 700, seed=1))
    sums = moments(stimuli[:, None], response, lags)
    weights = fit(sums, 10.0)
    predicted = predict(weights[0], stimuli, lags)
    matrix = np.concatenate([lag_matrix(one.numpy(), lags) for one in stimuli], 1)
    np.testing.assert_allclose(predicted, (matrix @ weights[0].numpy()).T, atol=1e-9)
    expected = [np.corrcoef(predicted[c], response[c])[0, 1] for c in range(4)]
    np.testing.assert_allclose(correlation(weights, sums)[0], expected, atol=1e-9)


def test_sums_of_runs_are_the_runs_behind_each_other() -> None:
    """Each run with zeros of its own around it."""
    lags = Lags(0, 20)
    runs = [(noise(1, 400, seed=i), noise(3, 400, seed=9 + i)) for i in range(2)]
    total = summed([moments(torch.from_numpy(s)[:, None], torch.from_numpy(r), lags) for s, r in runs])
    matrix = np.concatenate([lag_matrix(s[0], lags) for s, _ in runs])
    response = np.concatenate([r for _, r in runs], 1)
    design = np.concatenate([np.ones((800, 1)), matrix], 1)
    penalty = np.diag([0.0] + [5.0] * 20)
    expected = np.linalg.solve(design.T @ design + penalty, design.T @ response.T)
    np.testing.assert_allclose(fit(total, 5.0)[0], expected[1:], atol=1e-10)
    np.testing.assert_allclose(fit(total.of([2]), 5.0)[0, :, 0], expected[1:, 2], atol=1e-10)


@pytest.mark.parametrize("span", SPANS)
@pytest.mark.parametrize("stimuli", [1, 2])
def test_weights_are_mtrfpys(span: tuple[float, float], stimuli: int) -> None:
    mtrf = pytest.importorskip("mtrf.model", reason="extra dev")
    lags = Lags.between(*span, RATE)
    s_PT, r_CT = noise(stimuli, 3000).clip(0), noise(3, 3000, seed=1)
    reference = mtrf.TRF()
    reference.train(s_PT.T, r_CT.T, RATE, *span, 3.0, verbose=False)
    weights = fit(moments(torch.from_numpy(s_PT)[:, None], torch.from_numpy(r_CT), lags), 3.0 * RATE)
    ours = weights[0].unflatten(0, (stimuli, lags.count)) * RATE
    np.testing.assert_allclose(ours, reference.weights, rtol=0, atol=1e-8)


def test_banded_ridge_is_mtrfpys() -> None:
    mtrf = pytest.importorskip("mtrf.model", reason="extra dev")
    matrices = pytest.importorskip("mtrf.matrices", reason="extra dev")
    lags = Lags.between(0, 0.25, RATE)
    s_PT, r_CT = noise(3, 2000), noise(2, 2000, seed=1)
    reference = mtrf.TRF(method="banded")
    penalty = matrices.banded_regularization(lags.count, [0.5, 40.0], [2, 1], np)
    reference._train([s_PT.T], [r_CT.T], RATE, 0, 0.25, penalty)
    bands = torch.tensor([0.5] * (2 * lags.count) + [40.0] * lags.count) * RATE
    weights = fit(moments(torch.from_numpy(s_PT)[:, None], torch.from_numpy(r_CT), lags), bands)
    ours = weights[0].unflatten(0, (3, lags.count)) * RATE
    np.testing.assert_allclose(ours, reference.weights, rtol=0, atol=1e-8)


def test_a_stimulus_that_is_silent_gives_no_weights() -> None:
    sums = moments(torch.zeros(1, 2, 500), torch.from_numpy(noise(3, 500)), Lags(0, 10))
    weights = fit(sums, 1.0)
    assert not weights.any()
    assert not correlation(weights, sums).any()


def test_one_factor_serves_all_responses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time grows with features, not with features x subjects."""
    factored: list[int] = []
    cholesky = torch.linalg.cholesky
    monkeypatch.setattr(torch.linalg, "cholesky", lambda a: factored.append(len(a)) or cholesky(a))
    stimuli = torch.from_numpy(noise(1, 64, 1000))
    for subjects in (1, 19):
        sums: Moments = moments(stimuli, torch.from_numpy(noise(subjects, 1000, seed=1)), Lags(0, 65))
        assert fit(sums, 1.0).shape == (64, 65, subjects)
    assert factored == [64, 64]
