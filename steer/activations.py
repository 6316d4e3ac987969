"""The SAE activations: each takes encoder weights and centred inputs and gives features.

The same functions serve the whole dictionary and a few picked columns of it: `Encoder.pick` gathers those once. Only
top-k needs to see every feature to decide on one (`SEPARABLE` lists the others).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Encoder:
    """Weights of an SAE's encoder, whole or a few columns of it.

    `W_enc` [D, F], `b_enc` [F]; `threshold` [F] of jumprelu and batchtopk; `r_mag`, `b_mag` [F] of gated SAEs, whose
    `b_enc` is the gate's bias; `k` of topk.
    """

    W_enc: Tensor
    b_enc: Tensor
    threshold: Tensor | None = None
    r_mag: Tensor | None = None
    b_mag: Tensor | None = None
    k: int | None = None

    def pick(self, features: Tensor) -> Encoder:
        """The columns of some features, in contiguous memory."""

        def some(value: Tensor | None) -> Tensor | None:
            return None if value is None else value[features].contiguous()

        return replace(
            self,
            W_enc=self.W_enc[:, features].contiguous(),
            b_enc=self.b_enc[features].contiguous(),
            threshold=some(self.threshold),
            r_mag=some(self.r_mag),
            b_mag=some(self.b_mag),
        )

    def preactivation(self, x_XD: Tensor) -> Tensor:
        flat_ND = x_XD.reshape(-1, x_XD.shape[-1])
        return torch.addmm(self.b_enc, flat_ND, self.W_enc).view(*x_XD.shape[:-1], -1)


def relu(encoder: Encoder, x_XD: Tensor) -> Tensor:
    return encoder.preactivation(x_XD).relu()


def jumprelu(encoder: Encoder, x_XD: Tensor) -> Tensor:
    """Features above their own threshold keep their value (arXiv 2407.14435, eq. 3); a negative one counts as 0."""
    pre_XF = encoder.preactivation(x_XD)
    assert encoder.threshold is not None
    return torch.where(pre_XF > encoder.threshold.clamp(min=0), pre_XF, 0)


def topk(encoder: Encoder, x_XD: Tensor) -> Tensor:
    """The k largest features of each vector, those of them that are positive (arXiv 2406.04093, section 2.3)."""
    assert encoder.k is not None
    return largest(encoder.preactivation(x_XD), encoder.k)


def largest(pre_XF: Tensor, k: int) -> Tensor:
    """Only the k largest of each vector are kept, and of those the positive ones."""
    values, indices = pre_XF.topk(min(k, pre_XF.shape[-1]), dim=-1, sorted=False)
    return torch.zeros_like(pre_XF).scatter(-1, indices, values.relu())


def gated(encoder: Encoder, x_XD: Tensor) -> Tensor:
    """A gate decides whether, a magnitude with tied weights how much (arXiv 2404.16014, eq. 6)."""
    assert encoder.r_mag is not None and encoder.b_mag is not None
    gate_XF = encoder.preactivation(x_XD)
    magnitude_XF = (gate_XF - encoder.b_enc) * encoder.r_mag.exp() + encoder.b_mag
    return torch.where(gate_XF > 0, magnitude_XF.relu(), 0)


def batch_topk(pre_NF: Tensor, k: int) -> Tensor:
    """Training-time BatchTopK (arXiv 2412.06410): the k * N largest positive features of a whole batch of N vectors."""
    flat = pre_NF.relu().flatten()
    values, indices = flat.topk(min(k * pre_NF.shape[0], flat.numel()), sorted=False)
    return torch.zeros_like(flat).scatter(0, indices, values).view_as(pre_NF)


ACTIVATIONS: dict[str, Callable[[Encoder, Tensor], Tensor]] = {
    "relu": relu,
    "topk": topk,
    "batchtopk": jumprelu,  # at inference: a threshold learned in training stands for the batch
    "jumprelu": jumprelu,
    "gated": gated,
}
SEPARABLE = frozenset({"relu", "batchtopk", "jumprelu", "gated"})
