"""Layers whose weight is `weight_g * weight_v / |weight_v|` (weight normalisation, arXiv 1602.07868).

The names are those of torch's old weight norm, as codecs publish them. The weight is computed in forward instead of by
torch's hooks, so that copies, pickles and the hooks of this project stay simple.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hooks.precision import on_meta


class _WeightNorm(nn.Module):
    """Starts with the weights of `reference`; the norm is taken over all axes but the first."""

    def __init__(self, reference: nn.Conv1d | nn.ConvTranspose1d | nn.Linear) -> None:
        super().__init__()
        weight = reference.weight.detach()
        assert reference.bias is not None
        one_each = (len(weight), *[1] * (weight.ndim - 1))
        norm = torch.empty(one_each) if on_meta() else weight.norm(dim=tuple(range(1, weight.ndim)), keepdim=True)
        self.weight_g = nn.Parameter(norm)
        self.weight_v = nn.Parameter(weight.clone())
        self.bias = nn.Parameter(reference.bias.detach().clone())

    def normed_weight(self) -> Tensor:
        return torch._weight_norm(self.weight_v, self.weight_g, 0)


class WeightNormLinear(_WeightNorm):
    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(nn.Linear(c_in, c_out))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.normed_weight(), self.bias)


class WeightNormConv1d(_WeightNorm):
    def __init__(
        self, c_in: int, c_out: int, kernel_size: int, stride: int = 1, dilation: int = 1, padding: int = 0
    ) -> None:
        super().__init__(nn.Conv1d(c_in, c_out, kernel_size))
        self.out_channels = c_out
        self.stride, self.dilation, self.padding = stride, dilation, padding

    def forward(self, x_BCT: Tensor) -> Tensor:
        return F.conv1d(x_BCT, self.normed_weight(), self.bias, self.stride, self.padding, self.dilation)


class WeightNormConvTranspose1d(_WeightNorm):
    def __init__(
        self, c_in: int, c_out: int, kernel_size: int, stride: int = 1, padding: int = 0, output_padding: int = 0
    ) -> None:
        super().__init__(nn.ConvTranspose1d(c_in, c_out, kernel_size))
        self.out_channels = c_out
        self.stride, self.padding, self.output_padding = stride, padding, output_padding

    def forward(self, x_BCT: Tensor) -> Tensor:
        return F.conv_transpose1d(
            x_BCT, self.normed_weight(), self.bias, self.stride, self.padding, self.output_padding
        )
