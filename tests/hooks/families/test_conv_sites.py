from __future__ import annotations

import torch
from torch import nn

from hooks.families.conv_sites import children_of, conv_sites
from hooks.networks.weight_norm import WeightNormConv1d, WeightNormConvTranspose1d


class TimeFirst(nn.Module):
    def __init__(self, width: int, bidirectional: bool) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, width, bidirectional=bidirectional, batch_first=True)

    def forward(self, x_BDT: torch.Tensor) -> torch.Tensor:
        return self.lstm(x_BDT.transpose(1, 2))[0].transpose(1, 2)


def test_width_and_frame_rate_are_those_that_the_layers_make() -> None:
    down = nn.Sequential(
        nn.Conv1d(1, 4, 3, padding=1),
        nn.Sequential(nn.ELU(), WeightNormConv1d(4, 6, 3, stride=3)),
        TimeFirst(6, bidirectional=True),
        nn.Tanh(),
    )
    up = nn.Sequential(
        nn.ConvTranspose1d(12, 8, 2, stride=2), TimeFirst(8, False), WeightNormConvTranspose1d(8, 2, 3, stride=3)
    )
    stack = nn.ModuleDict({"down": down, "up": up})
    x_BDT, rate = torch.randn(1, 1, 60), 600
    for side, hop in (("down", 1), ("up", 6)):
        sites = list(conv_sites(stack, side, children_of(stack, side), rate, hop, chunk_s=2.0))
        assert [site.name for site in sites] == [f"{side}.{index}" for index in range(len(sites))]
        if side == "up":
            x_BDT = torch.randn(1, 12, 10)
        for site, layer in zip(sites, stack[side], strict=True):
            x_BDT = layer(x_BDT)
            assert site.module == f"{side}.{site.name.split('.')[1]}" and site.layout == "BDT" and site.chunk_s == 2.0
            assert site.width == x_BDT.shape[1]
            assert site.frame_rate == x_BDT.shape[2] * 10
