"""The threshold of a BatchTopK SAE, found on activations where its file does not say it."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from steer.errors import SAEError
from steer.sae import SAE

CHUNK = 4096


@torch.no_grad()
def calibrate_threshold(sae: SAE, activations: Tensor) -> SAE:
    """A BatchTopK SAE whose one threshold lets k features pass for each of the activations [..., D], on average.

    It lies half way between the smallest value that passes and the largest that does not, so that of N vectors exactly
    the k * N largest positive features pass (ties apart), as in training. `sae` is one with a k: top-k, or BatchTopK.

    Raises:
        SAEError: an SAE without a k, or no activations of its width.
    """
    if sae.k is None or sae.rms_norm:
        raise SAEError(f"a threshold stands for the k of a BatchTopK SAE, and this one is {sae.extra_repr()}")
    if not activations.ndim or activations.shape[-1] != sae.d_in or not activations.numel():
        raise SAEError(f"activations are {list(activations.shape)}, and [..., {sae.d_in}] is needed")
    x_ND = activations.reshape(-1, sae.d_in)
    keep, encoder = sae.k * len(x_ND), sae.encoder()
    largest = torch.zeros(0, device=sae.W_enc.device)
    for chunk_ND in x_ND.split(CHUNK):
        pre_NF = encoder.preactivation(sae.normalized(chunk_ND.to(largest.device))[0])
        largest = torch.cat([largest, pre_NF[pre_NF > 0]])
        largest = largest.topk(min(keep + 1, len(largest))).values
    threshold = largest.new_zeros(())
    if len(largest) > keep:
        last, first_out = largest[keep - 1], largest[keep]
        middle = (last + first_out) / 2
        threshold = torch.where(middle < last, middle, first_out)
    found = copy.deepcopy(sae)
    found.activation = "batchtopk"
    found.threshold = nn.Parameter(threshold.expand(sae.d_sae).clone(), requires_grad=False)
    return found
