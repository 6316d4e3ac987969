"""Feature ids: which of an SAE's features are meant."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from steer.errors import EditError


def check_features(features: Sequence[int] | Tensor, d_sae: int) -> Tensor:
    """Feature ids as a long tensor [j].

    Raises:
        EditError: an id that is not a whole number from 0 to d_sae - 1.
    """
    ids = torch.as_tensor(features).flatten()
    if ids.numel() == 0:
        return torch.zeros(0, dtype=torch.long)
    if ids.is_floating_point() or ids.dtype == torch.bool:
        raise EditError(f"features are whole numbers, not {ids.dtype}")
    bad = ids[(ids < 0) | (ids >= d_sae)]
    if len(bad):
        raise EditError(f"there is no feature {int(bad[0])}: the SAE has features 0 to {d_sae - 1}")
    return ids.long()
