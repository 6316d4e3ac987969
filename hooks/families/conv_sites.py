"""Sites of stacks of convolutions: one for each layer, with the width and the frame rate that it makes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import nn

from hooks.networks.weight_norm import WeightNormConv1d, WeightNormConvTranspose1d
from hooks.site import Site

DOWN, UP = (nn.Conv1d, WeightNormConv1d), (nn.ConvTranspose1d, WeightNormConvTranspose1d)


def children_of(module: nn.Module, path: str) -> list[str]:
    """Paths of what lies directly in a submodule, in order."""
    return [f"{path}.{name}" for name, _ in module.get_submodule(path).named_children()]


def conv_sites(
    module: nn.Module, side: str, paths: Iterable[str], sample_rate: int, hop: int = 1, chunk_s: float | None = None
) -> Iterator[Site]:
    """`side.0`, `side.1` and so on for the layers at these paths; before the first, `hop` samples make a frame."""
    width = None
    for index, path in enumerate(paths):
        for part in module.get_submodule(path).modules():
            if isinstance(part, DOWN + UP):
                stride = part.stride if isinstance(part.stride, int) else part.stride[0]
                width = part.out_channels
                hop = hop // stride if isinstance(part, UP) else hop * stride
            elif isinstance(part, nn.LSTM):
                width = part.hidden_size * (2 if part.bidirectional else 1)
        yield Site(f"{side}.{index}", path, "BDT", width=width, frame_rate=sample_rate / hop, chunk_s=chunk_s)
