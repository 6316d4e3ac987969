"""What features stand for, by an SAE of ours or of another library."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from steer.kernels import decode_dense
from steer.normalize import NORMALIZATIONS
from steer.sae import SAE, EncodesAndDecodes


def decoded(sae: EncodesAndDecodes, f_XF: Tensor, x_XD: Tensor | None = None) -> Tensor:
    """Activations [..., d_in] of features that belong to the activations `x_XD`, by ours or another library's SAE.

    Where an SAE normalises each activation and `x_XD` is not given, they are of the scale that it normalises to.
    """
    if isinstance(sae, SAE):
        if x_XD is None:
            return decode_dense(f_XF.to(sae.W_dec.dtype), sae.W_dec, sae.b_dec)
        return sae.decode(f_XF, x_XD)
    cfg: Any = getattr(sae, "cfg", None)
    if getattr(cfg, "normalize_activations", None) in NORMALIZATIONS:
        # SAELens's keep the scale of what they encoded last, and drop it when they decode
        sae.encode(torch.tensor([1.0, -1.0]).repeat(cfg.d_in)[: cfg.d_in].to(f_XF) if x_XD is None else x_XD)
    return sae.decode(f_XF)


def moved(sae: EncodesAndDecodes, new_XF: Tensor, old_XF: Tensor, x_XD: Tensor | None = None) -> Tensor:
    """decode(new) - decode(old), for features that belong to the activations `x_XD`, as in `decoded`."""
    if not isinstance(sae, SAE):
        # in one call: see `decoded`
        new_XD, old_XD = decoded(sae, torch.stack(torch.broadcast_tensors(new_XF, old_XF)), x_XD)
        return new_XD - old_XD
    # a linear decoder: what did not change does not round either
    change_XD = decode_dense(new_XF - old_XF, sae.W_dec, None)
    scale_X1 = None if x_XD is None else sae.normalized(x_XD)[1]
    return change_XD if scale_X1 is None else change_XD * scale_X1
