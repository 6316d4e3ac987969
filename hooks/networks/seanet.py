"""SEANet encoder (EnCodec, arXiv 2210.13438, section 3.1), as WavTokenizer uses it: non-causal, weight-normalised.

Parameter names are EnCodec's (`model.0.conv.conv.weight_g`, ...).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from hooks.networks.weight_norm import WeightNormConv1d


class NormConv1d(nn.Module):
    """One more level of names, as in the published checkpoints."""

    def __init__(self, *args: int, **kwargs: int) -> None:
        super().__init__()
        self.conv = WeightNormConv1d(*args, **kwargs)

    def forward(self, x_BCT: Tensor) -> Tensor:
        return self.conv(x_BCT)


class PaddedConv1d(nn.Module):
    """Convolution with reflect padding such that T samples give ceil(T / stride) frames."""

    def __init__(self, c_in: int, c_out: int, kernel_size: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv = NormConv1d(c_in, c_out, kernel_size, stride=stride, dilation=dilation)
        self.stride = stride
        self.span = (kernel_size - 1) * dilation + 1

    def forward(self, x_BCT: Tensor) -> Tensor:
        total = self.span - self.stride
        frames = math.ceil(x_BCT.shape[-1] / self.stride)
        extra = frames * self.stride - x_BCT.shape[-1]
        right = total // 2
        return self.conv(reflect_pad(x_BCT, total - right, right + extra))


def reflect_pad(x_BCT: Tensor, left: int, right: int) -> Tensor:
    """Reflect padding that also works for inputs shorter than the padding (zeros are put behind them first)."""
    missing = max(left, right) + 1 - x_BCT.shape[-1]
    if missing <= 0:
        return F.pad(x_BCT, (left, right), mode="reflect")
    padded = F.pad(F.pad(x_BCT, (0, missing)), (left, right), mode="reflect")
    return padded[..., : padded.shape[-1] - missing]


class ResidualUnit(nn.Module):
    """ELU, conv, ELU, 1x1 conv, beside a 1x1 shortcut."""

    def __init__(self, width: int, kernel_size: int = 3) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.ELU(),
            PaddedConv1d(width, width // 2, kernel_size),
            nn.ELU(),
            PaddedConv1d(width // 2, width, 1),
        )
        self.shortcut = PaddedConv1d(width, width, 1)

    def forward(self, x_BCT: Tensor) -> Tensor:
        return self.shortcut(x_BCT) + self.block(x_BCT)


class ResidualLSTM(nn.Module):
    """Two-layer LSTM over time, added to its input."""

    def __init__(self, width: int, num_layers: int = 2) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, width, num_layers)

    def forward(self, x_BCT: Tensor) -> Tensor:
        y_TBC, _ = self.lstm(x_BCT.permute(2, 0, 1))
        return y_TBC.permute(1, 2, 0) + x_BCT


class SEANetEncoder(nn.Module):
    """Waveform [B, 1, samples] to continuous latent [B, dimension, ceil(samples / hop)], hop = product of `ratios`.

    `model` is one flat Sequential: conv, then (residual unit, ELU, down) for each ratio, LSTM, ELU, conv. `ratios`
    stand in the decoder's order, as in the papers' configurations; the encoder walks them backwards.
    """

    def __init__(
        self,
        dimension: int = 512,
        n_filters: int = 32,
        ratios: Sequence[int] = (8, 5, 4, 2),
        kernel_size: int = 7,
        lstm_layers: int = 2,
    ) -> None:
        super().__init__()
        self.dimension = dimension
        self.hop_length = math.prod(ratios)
        width = n_filters
        layers: list[nn.Module] = [PaddedConv1d(1, width, kernel_size)]
        for ratio in reversed(ratios):
            layers += [
                ResidualUnit(width),
                nn.ELU(),
                PaddedConv1d(width, 2 * width, 2 * ratio, stride=ratio),
            ]
            width *= 2
        layers += [ResidualLSTM(width, lstm_layers), nn.ELU(), PaddedConv1d(width, dimension, kernel_size)]
        self.model = nn.Sequential(*layers)

    def forward(self, x_BCT: Tensor) -> Tensor:
        return self.model(x_BCT)
