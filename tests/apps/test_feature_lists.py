from __future__ import annotations

import torch

from apps.feature_lists import strongest


def test_shape_of_top_features() -> None:
    f_TF = torch.zeros(10, 4)
    f_TF[3, 2], f_TF[:, 1] = 5.0, 1.0
    assert [row["feature"] for row in strongest(f_TF, 75.0, 4)] == [1, 2]  # silent ones are not listed
    assert strongest(f_TF, None, 1)[0]["peak_s"] is None
