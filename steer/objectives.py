"""What each SAE activation minimises in training: a reconstruction, a penalty, and what revives dead features.

All take activations in the normalised space (mean length sqrt(D)) and a decoder whose rows have length 1. What is
minimised is a mean over the vectors: with several processes, that of one's own. Only batchtopk looks at the others'.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from steer.parallel import ALONE, Group
from steer.sae import MIN_RMS, SAE
from steer.sparse_step import sparse_pass

BANDWIDTH = 0.1
"""Width of the window around a jumprelu threshold in which inputs move it. Normalised pre-activations are about 1:
with a far narrower window hardly any input falls into it and the thresholds do not move."""
AUX_WEIGHT = 1 / 32
"""Weight of the auxiliary loss (arXiv 2406.04093, section 2.4)."""


@dataclass(frozen=True)
class Pass:
    """A training pass: the reconstruction [N, D], and what is minimised beside its error.

    `count_F` says in how many vectors each feature was active, `least` what the smallest active feature was (infinite
    where none was), and `pre(features)` gives pre-activations [N, j] of some, with gradients.
    """

    y_ND: Tensor
    penalty: Tensor
    count_F: Tensor
    least: Tensor
    pre: Callable[[Tensor], Tensor]


def dense_pass(sae: SAE, pre_NF: Tensor, f_NF: Tensor, penalty: Tensor) -> Pass:
    """From features [N, F] before RMS norm."""
    y_ND = sae.decode(f_NF / rms_of(sae, f_NF))
    seen_NF = f_NF.detach()
    least = torch.where(seen_NF > 0, seen_NF, torch.inf).amin()
    return Pass(y_ND, penalty, (seen_NF > 0).sum(0), least, lambda features: pre_NF[:, features])


def relu(sae: SAE, x_ND: Tensor, weight: float, group: Group = ALONE) -> Pass:
    """weight * ||f||_1 (`latent-sae-control.txt`, eq. 1).

    With RMS norm the penalty is on the features behind it: before it, it could be made small by small weights alone.
    """
    pre_NF = sae.encoder().preactivation(x_ND)
    f_NF = pre_NF.relu()
    return dense_pass(sae, pre_NF, f_NF, weight * (f_NF / rms_of(sae, f_NF)).sum(-1).mean())


def topk(sae: SAE, x_ND: Tensor, weight: float, group: Group = ALONE) -> Pass:
    return chosen_pass(sae, x_ND, False, group)


def batchtopk(sae: SAE, x_ND: Tensor, weight: float, group: Group = ALONE) -> Pass:
    """The k * N largest features of the batch (arXiv 2412.06410); the threshold is learned in `follow_threshold`."""
    return chosen_pass(sae, x_ND, True, group)


def chosen_pass(sae: SAE, x_ND: Tensor, batch: bool, group: Group) -> Pass:
    """From the k largest features a vector, or k * N a batch: nothing of size [N, F] is kept."""
    y_ND, values_P, pairs = sparse_pass(sae, x_ND, batch, group)
    least = values_P.amin() if len(values_P) else values_P.new_tensor(torch.inf)

    def pre(some: Tensor) -> Tensor:
        return sae.encoder(some).preactivation(x_ND)

    return Pass(y_ND, x_ND.new_zeros(()), pairs.count_F, least, pre)


def jumprelu(sae: SAE, x_ND: Tensor, weight: float, group: Group = ALONE) -> Pass:
    """weight * ||f||_0, with straight-through gradients for the thresholds (arXiv 2407.14435, eqs. 9 to 12)."""
    pre_NF = sae.encoder().preactivation(x_ND)
    threshold_F = sae.threshold.detach()
    open_NF = (pre_NF > threshold_F).to(pre_NF)
    window_NF = ((pre_NF - threshold_F).abs() < BANDWIDTH / 2).to(pre_NF) / BANDWIDTH
    zero_F = sae.threshold - threshold_F  # its value is 0, its gradient is not
    f_NF = pre_NF * open_NF - (threshold_F * window_NF) * zero_F
    count_NF = open_NF - window_NF * zero_F
    return dense_pass(sae, pre_NF, f_NF, weight * count_NF.sum(-1).mean())


def gated(sae: SAE, x_ND: Tensor, weight: float, group: Group = ALONE) -> Pass:
    """weight * ||relu(gate)||_1 + the error of a reconstruction from the gate alone (arXiv 2404.16014, eq. 8)."""
    encoder = sae.encoder()
    assert encoder.r_mag is not None and encoder.b_mag is not None
    gate_NF = encoder.preactivation(x_ND)
    magnitude_NF = (gate_NF - encoder.b_enc) * encoder.r_mag.exp() + encoder.b_mag
    alone_NF = gate_NF.relu()
    alone_ND = alone_NF @ sae.W_dec.detach() + sae.b_dec.detach()
    error = (x_ND - alone_ND).square().sum(-1).mean()
    penalty = weight * alone_NF.sum(-1).mean() + error
    return dense_pass(sae, gate_NF, magnitude_NF.relu() * (gate_NF > 0), penalty)


OBJECTIVES: dict[str, Callable[[SAE, Tensor, float, Group], Pass]] = {
    "relu": relu,
    "topk": topk,
    "batchtopk": batchtopk,
    "jumprelu": jumprelu,
    "gated": gated,
}


def rms_of(sae: SAE, f_NF: Tensor) -> Tensor | float:
    """What the features are divided by: 1, or with RMS norm their root mean square [N, 1]."""
    # clamped before the root, whose gradient is infinite at 0, where nothing is active
    return f_NF.square().mean(-1, keepdim=True).clamp(min=MIN_RMS**2).sqrt() if sae.rms_norm else 1.0


def auxiliary(sae: SAE, error_ND: Tensor, step: Pass, dead: Tensor) -> Tensor:
    """Dead features try to explain what the living ones leave over (AuxK, arXiv 2406.04093, section 2.4).

    `dead` [j] are their ids, `error_ND` is what the reconstruction misses. The k largest count whatever their sign: a
    feature that died because its input is never positive would get no gradient through a rectifier.
    """
    pre_NJ = step.pre(dead)
    values, indices = pre_NJ.topk(min(max(sae.d_in // 2, 1), len(dead)), sorted=False)
    z_NJ = torch.zeros_like(pre_NJ).scatter(-1, indices, values)
    # rows of length 1, also with RMS norm, where they could otherwise answer by shrinking
    rows_JD = torch.nn.functional.normalize(sae.W_dec[dead], dim=1)
    return AUX_WEIGHT * (z_NJ @ rows_JD - error_ND.detach()).square().sum(-1).mean()


@torch.no_grad()
def follow_threshold(sae: SAE, least: Tensor, rate: float) -> None:
    """The inference threshold of a batchtopk SAE: a running mean of the smallest feature that each batch kept."""
    if torch.isfinite(least):
        sae.threshold.lerp_(least.expand_as(sae.threshold), rate)
