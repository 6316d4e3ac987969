"""What all launches share."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def on(x: Tensor) -> AbstractContextManager[object]:
    """Launches inside the with-block go to the device of `x`, whichever is the current one."""
    return torch.cuda.device_of(x) if x.is_cuda else nullcontext()


def next_power(count: int) -> int:
    """The smallest power of two that is at least `count`, and at least 1."""
    return 1 << max(0, count - 1).bit_length()
