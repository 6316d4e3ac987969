"""Normalisations of single activations: what some SAEs do to each vector before they encode it, and undo at the end.

They cannot be folded into weights, because each vector has its own scale; so an SAE names the one it needs
(`SAE(normalize=...)`) and nothing is remembered between encode and decode. The names are SAELens's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

EPS = 1e-5


class Normalized(NamedTuple):
    """x = n * scale + shift, `n` [..., D] being what the SAE sees; `scale` and `shift` are [..., 1]."""

    n_XD: Tensor
    scale_X1: Tensor
    shift_X1: Tensor


def layer_norm(x_XD: Tensor) -> Normalized:
    """Mean 0 and deviation 1 (n - 1 in its denominator), as in OpenAI's sparse_autoencoder; undone without epsilon."""
    mean_X1 = x_XD.mean(-1, keepdim=True)
    centred_XD = x_XD - mean_X1
    std_X1 = centred_XD.std(-1, keepdim=True)
    return Normalized(centred_XD / (std_X1 + EPS), std_X1, mean_X1)


def constant_norm_rescale(x_XD: Tensor) -> Normalized:
    """Length sqrt(D); a vector of zeros stays one."""
    scale_X1 = (x_XD.norm(dim=-1, keepdim=True) / x_XD.shape[-1] ** 0.5).clamp(min=torch.finfo(x_XD.dtype).tiny)
    return Normalized(x_XD / scale_X1, scale_X1, torch.zeros_like(scale_X1))


NORMALIZATIONS: dict[str, Callable[[Tensor], Normalized]] = {
    "layer_norm": layer_norm,
    "constant_norm_rescale": constant_norm_rescale,
}
