from __future__ import annotations

import itertools

import pytest
import torch

from evaluation.auroc import auroc, average_ranks, best_by_chance


def test_equal_scores_share_their_ranks() -> None:
    ranks = average_ranks(torch.tensor([[3.0, 0.0], [1.0, 0.0], [3.0, 0.0], [2.0, -1.0]]))
    assert ranks.tolist() == [[3.5, 3.0], [1.0, 3.0], [3.5, 3.0], [2.0, 1.0]]


def test_it_is_scikit_learns_with_ties_and_in_blocks() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is what it is compared with")
    scores_NF = torch.randint(0, 6, (60, 7)) / 4  # many ties
    scores_NF[:, 3] = 0
    members_CN = torch.rand(5, 60) < torch.tensor([0.1, 0.3, 0.5, 0.8, 0.95])[:, None]
    ours = auroc(scores_NF, members_CN, block=3)
    assert ours.shape == (5, 7)
    for c in range(5):
        for f in range(7):
            theirs = metrics.roc_auc_score(members_CN[c].numpy(), scores_NF[:, f].numpy())
            assert float(ours[c, f]) == pytest.approx(theirs, abs=1e-12)
    assert ours[:, 3].tolist() == [0.5] * 5


def test_a_class_of_all_or_none_has_none() -> None:
    members_CN = torch.tensor([[True, True], [False, False], [True, False]])
    ours = auroc(torch.tensor([[2.0], [1.0]]), members_CN)
    assert ours[:2].isnan().all()
    assert float(ours[2]) == 1.0


def test_the_best_by_chance_is_that_of_all_ways_to_deal_labels_out() -> None:
    scores_NF = torch.tensor([[1.0, 4.0], [2.0, 1.0], [3.0, 2.0], [4.0, 3.0], [5.0, 5.0]])
    ways = torch.tensor([[n in pair for n in range(5)] for pair in itertools.combinations(range(5), 2)])
    exact = sorted(auroc(scores_NF, ways).amax(1).tolist())
    found = best_by_chance(scores_NF, [2, 3, 5], 20_000, block=1)
    # ten ways, each as likely: the quantiles in the middle of the steps are those values
    assert found[0].quantile(torch.arange(0.05, 1, 0.1, dtype=torch.float64)).tolist() == pytest.approx(exact)
    assert found[1].mean() != found[0].mean()
    assert found[2].isnan().all()


def test_more_columns_reach_more_by_chance() -> None:
    scores_NF = torch.randn(40, 500)
    one, many = (best_by_chance(scores_NF[:, :count], [20]).mean() for count in (1, 500))
    assert float(one) == pytest.approx(0.5, abs=0.03)  # sd of one: 0.092 / sqrt(200)
    assert many > 0.72  # about three standard deviations above
