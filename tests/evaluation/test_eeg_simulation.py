"""Simulated EEG is what it says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evaluation.brain import Findings
from evaluation.eeg_simulation import (
    Planted,
    answer,
    pink_noise,
    plant,
    responses,
    simulated,
    sparse_features,
)

pytest.importorskip("scipy", reason="extra eeg")
RATE = 64.0
RUNS = {"a": int(200 * RATE), "b": int(160 * RATE)}


def test_kernels() -> None:
    planted = plant([3, 1, 4, 15, 9], np.random.default_rng(0))
    assert [one.feature for one in planted] == [3, 1, 4, 15, 9]
    assert sorted(one.peak_s for one in planted) == pytest.approx([0.08, 0.16, 0.24, 0.32, 0.4])
    assert sorted(one.sign for one in planted) == [-1, -1, 1, 1, 1]


def test_features_fire_in_bursts() -> None:
    features = sparse_features(50, RUNS, RATE, np.random.default_rng(0))
    assert features["a"].shape == (50, RUNS["a"]) and features["b"].shape == (50, RUNS["b"])
    # starts 2 times a second, and bursts of 5.5 frames of 20 ms on average, some over each other
    share = float((features["a"] > 0).double().mean())
    assert 0.15 < share < 0.22
    assert float(features["a"][features["a"] > 0].min()) >= 0.2
    together = np.corrcoef(features["a"])[np.triu_indices(50, 1)]
    assert np.abs(together).max() < 0.2


def test_a_response_is_as_large_as_it_should_be() -> None:
    """Its correlation with the EEG is r in the mean, for r one number or one for each subject; all in one band."""
    features = sparse_features(4, RUNS, RATE, np.random.default_rng(0))
    evoked = responses(features, [Planted(0, 0.1, 1), Planted(2, 0.3, -1)], RATE)
    both = np.concatenate(list(evoked.values()), 1)
    np.testing.assert_allclose(both.std(1), 1)
    for r in (0.2, np.linspace(0.1, 0.3, 30)):
        study = simulated(evoked, 30, r, RATE, ["a"], np.random.default_rng(1))
        found = [
            np.mean([np.corrcoef(evoked[run][p], eeg_T)[0, 1] for eeg_T in study.eeg[run]])
            for run in RUNS
            for p in range(2)
        ]
        assert np.mean(found) == pytest.approx(0.2, abs=0.02)
        quarter = torch.quantile(study.eeg["a"], torch.tensor([0.25, 0.5, 0.75]).double(), dim=1)
        torch.testing.assert_close(quarter[2] - quarter[0], torch.ones(30).double())
        assert float(quarter[1].abs().max()) < 1e-12
    assert (study.development, study.test) == (("a",), ("b",))


def test_noise_is_pink_in_its_band() -> None:
    noise = pink_noise(40, 8192, RATE, np.random.default_rng(0))
    power = (np.abs(np.fft.rfft(noise)) ** 2).mean(0)
    hertz = np.fft.rfftfreq(8192, 1 / RATE)

    def at(low: float, high: float) -> float:
        return float(power[(hertz >= low) & (hertz < high)].mean())

    # an octave higher half as much; 40 x 64 and more values of spread 1: 5 % is several deviations
    assert at(1.9, 2.1) / at(3.8, 4.2) == pytest.approx(2, rel=0.1)
    assert at(0.2, 0.3) < 0.01 * at(2, 3) and at(16, 20) < 0.01 * at(2, 3)


def test_answers() -> None:
    """Feature 0 right, 1 at another lag, 2 with another sign, 3 not found; of others one like a planted one."""
    lag = torch.tensor([0.1, 0.2, 0.3, 0.1, 0.1, 0.1]).double()
    adjusted = torch.tensor([[1, 0.01]] * 3 + [[1, 1]] + [[0.01, 1]] * 2).double()
    result = Findings(
        lags_L=torch.zeros(1), lag_F2=torch.stack([lag, lag], 1), t_F2=adjusted, p_F2=adjusted, adjusted_F2=adjusted,
        trf_FLS=torch.zeros(6, 1, 2), r_FS=torch.zeros(6, 2), left_out_F=torch.zeros(6), ridge=1.0,
    )  # fmt: skip
    planted = [Planted(0, 0.11, 1), Planted(1, 0.1, 1), Planted(2, 0.3, -1), Planted(3, 0.1, 1)]
    likeness = torch.tensor([[0.0] * 4] * 4 + [[0.0, 0.05, 0.2, 0], [0.05] * 4])
    got = answer(result, planted, likeness)
    assert (got.planted, got.found, got.right, got.others, got.alike) == (4, 3, 1, 2, 1)
