from __future__ import annotations

import pytest
import torch

from steer.pooling import POOLINGS, pooled, smoothed

F_ETF = torch.rand(2, 11, 3, generator=torch.Generator().manual_seed(0))


def test_pooling_by_hand() -> None:
    f_ETF = torch.tensor([[[0.0, 1.0], [0.5, 3.0]]])
    expected = [[0.25, 2.0], [0.5, 3.0], [6.0, 41.0], [1.5, 4.0]]
    assert torch.allclose(pooled(f_ETF, list(POOLINGS))[:2], torch.tensor(expected[:2]))
    assert torch.allclose(pooled(f_ETF, list(POOLINGS))[2:], torch.tensor(expected[2:]).log())
    assert pooled(-f_ETF, ["mean"]).equal(-pooled(f_ETF, ["mean"]))


@pytest.mark.parametrize("frames", [1, 3, 7, 31])
def test_smoothing_pools_what_is_there_around_each_frame(frames: int) -> None:
    found_TPF = smoothed(F_ETF, list(POOLINGS), frames)
    side = frames // 2
    for index in range(F_ETF.shape[1]):
        around_ETF = F_ETF[:, max(0, index - side) : index + side + 1]
        # sums in another order
        torch.testing.assert_close(found_TPF[index], pooled(around_ETF, list(POOLINGS)), atol=1e-6, rtol=1e-5)
