"""Factors that are planted in the dimensions of a representation, and noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from evaluation.dataset import LabelledSound
from evaluation.factor_sets import Factors
from evaluation.factors import DURATION, SHUFFLED, correlation, evaluate, over_factors
from evaluation.pooled_saes import DENSE, PCA, RANDOM, ROTATED, SAE_NAME, Swept
from evaluation.report import Report
from steer import SAE

pytest.importorskip("sklearn", reason="extra eval")

CLIPS, WIDTH = 200, 16


def planted(k: int, turn: torch.Tensor) -> SAE:
    """An SAE whose features are the axes before they were turned, and their opposites: the k largest."""
    sae = SAE(WIDTH, 2 * WIDTH, "topk", k, decoder_bias=False)
    with torch.no_grad():
        sae.W_dec.copy_(torch.cat([turn.T, -turn.T]))
        sae.W_enc.copy_(sae.W_dec.T)
    return sae.requires_grad_(False)


@pytest.fixture(scope="module")
def report() -> Report:
    """The vectors are turned so that no dimension is a factor; an SAE turns them back. Factors 0 to 11 are axes, 12 is
    noise, and the duration is the first axis."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    z = rng.normal(size=(CLIPS, WIDTH))
    turn = torch.linalg.qr(torch.randn(WIDTH, WIDTH))[0]
    x = (z @ turn.numpy().T).astype(np.float32)
    values = np.concatenate([z[:, :12] + 0.1 * rng.normal(size=(CLIPS, 12)), rng.normal(size=(CLIPS, 1))], axis=1)
    names = [f"axis {n}" for n in range(12)] + ["noise"]
    factors = Factors(names, ["even" if n % 2 else "odd" for n in range(13)], values, ["a note"])
    swept = Swept("l", {(one, 0): planted(k, turn) for one, k in ((50.0, 16), (90.0, 3))})
    sounds = [LabelledSound("", str(n)) for n in range(CLIPS)]
    return evaluate("m", {"l": x}, {"l": x}, {"l": swept}, sounds, factors, z[:, 0], paper=True)


def rows_of(report: Report) -> dict[tuple[str, str | None], dict[str, object]]:
    return {(row["vectors"], row["sparsity"]): row for row in report.rows}


def test_an_sae_that_holds_the_factors_needs_few_dimensions(report: Report) -> None:
    rows = rows_of(report)
    dense, sae = rows[DENSE, None], rows[SAE_NAME, "50 %"]
    # a factor is two features, one for each sign
    assert sae["dimensions"].value == pytest.approx(2, abs=0.4) and dense["dimensions"].value > 5
    assert sae["dimensions to dense"].high < -2
    assert sae["completeness"].value > dense["completeness"].value + 0.2
    assert sae["R2"].value > 0.9 and dense["R2 to dense"] is None
    # the penalty of 0.1 takes more from many small weights than from few large ones
    assert sae["R2 to dense"].low > 0 and dense["R2"].value > 0.7
    assert dense["R2, own penalty"] > 0.95
    assert report.about["best factors"]["l"] and "noise" not in report.about["best factors"]["l"]


def test_controls_show_nothing(report: Report) -> None:
    rows = rows_of(report)
    assert abs(rows[SHUFFLED, None]["R2"].value) < 0.05
    assert rows[SHUFFLED, None]["informative"] == 0 and rows[SHUFFLED, None]["dimensions"] is None
    # the duration is one axis, and predicts one factor alone
    assert rows[DURATION, None]["informative"] == 1 and rows[DURATION, None]["active"] == 1
    for name in (RANDOM, PCA, ROTATED):
        assert rows[name, "50 %"]["dimensions"].value > 4
    # with all components a rotation loses nothing
    assert rows[ROTATED, "50 %"]["R2, own penalty"] is None
    assert rows[SAE_NAME, "90 %"]["R2"].value < rows[SAE_NAME, "50 %"]["R2"].value


def test_noise_has_no_completeness_but_by_the_papers_formula(report: Report) -> None:
    noise = [row for row in report.clips if row["factor"] == "noise"]
    assert len(noise) == 2 + 2 * 4
    for row in noise:
        assert abs(row["R2"]) <= 0.05
        assert row["completeness"] is None and row["dimensions"] is None and not row["best"]
    rows = rows_of(report)
    assert rows[DENSE, None]["paper's R2"] > rows[DENSE, None]["R2"].value
    # of ten factors one that nothing predicts counts as complete
    assert rows[SHUFFLED, None]["paper's completeness"] > 0.6


def test_families_and_entropy(report: Report) -> None:
    counts = report.about["families"]["l"]
    assert sum(mean for mean, _ in counts.values()) == pytest.approx(10)
    found = report.about["entropy and completeness"]["l"]
    assert found["sparsity"] == 90.0
    assert report.about["notes"] == ["a note"]


def test_means_over_factors() -> None:
    found = over_factors(np.array([1.0, np.nan, 3.0]))
    assert found is not None and (found.value, found.count) == (2.0, 2)
    assert 1 <= found.low < 2 < found.high <= 3
    assert over_factors(np.array([1.0, np.nan])) is None


def test_the_correlation_says_what_noise_reaches() -> None:
    class Known:
        completeness = np.array([*np.linspace(0.9, 0.1, 42), np.nan])

    found = correlation([*np.linspace(0, 2, 42), 1.0], Known())  # type: ignore[arg-type]
    assert found == {"correlation": -1.0, "factors": 42, "noise": pytest.approx(0.306, abs=1e-3)}
    assert correlation([None] * 43, Known())["correlation"] is None  # type: ignore[arg-type]
