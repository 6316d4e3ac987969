"""What devices can compute."""

from __future__ import annotations

import torch


def widest(device: torch.device) -> torch.dtype:
    """The dtype for long sums on a device: float64, or float32 where there is none (Apple's GPUs)."""
    return torch.float32 if device.type == "mps" else torch.float64


def on_meta() -> bool:
    """Whether tensors are made without memory, as by `with torch.device("meta")`.

    Nothing is drawn or computed for them: torch would load its compiler for that, which takes a second and a half.
    """
    return torch.get_default_device().type == "meta"
