"""The SAE activations: each takes encoder weights and centred inputs and gives features.

The same functions serve the whole dictionary and a few picked columns of it: `Encoder.pick` gathers those once. Only
top-k needs to see every feature to decide on one (`SEPARABLE` lists the others).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from steer.kernels import encode_topk
from steer.matmul import linear


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
        return linear(x_XD, self.W_enc, self.b_enc)

    def topk(self, x_XD: Tensor) -> tuple[Tensor, Tensor]:
        """The k largest features of each vector [..., k], those that are negative as 0, and their ids, in no order."""
        assert self.k is not None
        values_XK, indices_XK = encode_topk(x_XD, self.W_enc, self.b_enc, self.k)
        return values_XK.relu(), indices_XK


def relu(encoder: Encoder, x_XD: Tensor) -> Tensor:
    return encoder.preactivation(x_XD).relu_()


def jumprelu(encoder: Encoder, x_XD: Tensor) -> Tensor:
    """Features above their own threshold keep their value (arXiv 2407.14435, eq. 3); a negative one counts as 0."""
    pre_XF = encoder.preactivation(x_XD)
    assert encoder.threshold is not None
    return pre_XF.masked_fill_(~(pre_XF > encoder.threshold.clamp(min=0)), 0)


def topk(encoder: Encoder, x_XD: Tensor) -> Tensor:
    """The k largest features of each vector, those of them that are positive (arXiv 2406.04093, section 2.3)."""
    return dense(*encoder.topk(x_XD), encoder.b_enc.shape[0])


def dense(values_XK: Tensor, indices_XK: Tensor, count: int) -> Tensor:
    """Features [..., count] that are 0 but for some, by their ids."""
    return values_XK.new_zeros(*values_XK.shape[:-1], count).scatter_(-1, indices_XK, values_XK)


def gated(encoder: Encoder, x_XD: Tensor) -> Tensor:
    """A gate decides whether, a magnitude with tied weights how much (arXiv 2404.16014, eq. 6)."""
    assert encoder.r_mag is not None and encoder.b_mag is not None
    gate_XF = encoder.preactivation(x_XD)
    magnitude_XF = (gate_XF - encoder.b_enc) * encoder.r_mag.exp() + encoder.b_mag
    return torch.where(gate_XF > 0, magnitude_XF.relu(), 0)


ACTIVATIONS: dict[str, Callable[[Encoder, Tensor], Tensor]] = {
    "relu": relu,
    "topk": topk,
    "batchtopk": jumprelu,  # at inference: a threshold learned in training stands for the batch
    "jumprelu": jumprelu,
    "gated": gated,
}
SEPARABLE = frozenset({"relu", "batchtopk", "jumprelu", "gated"})
