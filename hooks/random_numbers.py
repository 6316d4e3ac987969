"""Seeds that leave the caller's random numbers as they were.

`torch.manual_seed` seeds every device there is, and `torch.random.fork_rng` restores those that it is told of.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

CPU = torch.device("cpu")


def generators(device: torch.device) -> list[torch.Generator]:
    """The generators that draw where none is named: the CPU's, and that of another device."""
    found = [torch.default_generator]
    if device.type == "mps":
        found.append(torch.mps._get_default_mps_generator())
    elif device.type not in ("cpu", "meta"):
        backend = torch.get_device_module(device)
        if hasattr(backend, "default_generators"):
            backend.init()
            index = backend.current_device() if device.index is None else device.index
            found.append(backend.default_generators[index])
    return found


@contextmanager
def seeded(seed: int, device: torch.device = CPU, left: list[Tensor] | None = None) -> Iterator[None]:
    """Inside, random numbers on the CPU and on `device` follow from the seed; afterwards they go on as without it.

    `left` is a list for those who come again: where numbers were left at the end, they go on the next time.
    """
    both = generators(device)
    before = [one.get_state() for one in both]
    try:
        for number, one in enumerate(both):
            if left:
                one.set_state(left[number])
            else:
                one.manual_seed(seed)
        yield
        if left is not None:
            left[:] = [one.get_state() for one in both]
    finally:
        for one, state in zip(both, before, strict=True):
            one.set_state(state)
