from __future__ import annotations

import pytest
import torch

from evaluation.auroc import auroc, average_ranks


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
