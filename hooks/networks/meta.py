from __future__ import annotations

import torch


def on_meta() -> bool:
    """Whether tensors are made without memory, as by `with torch.device("meta")`.

    Nothing is drawn or computed for them: torch would load its compiler for that, which takes a second and a half.
    """
    return torch.get_default_device().type == "meta"
