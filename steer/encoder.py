"""`Encoder`: the weights from which an activation makes features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from steer.matmul import linear


@dataclass(frozen=True)
class Encoder:
    """Weights of an SAE's encoder, whole or a few columns of it.

    `W_enc` [D, F], `b_enc` [F]; `own`, the activation's own parameters [F] by their names; `k` of those that have one.
    """

    W_enc: Tensor
    b_enc: Tensor
    own: Mapping[str, Tensor] = field(default_factory=dict)
    k: int | None = None

    def pick(self, features: Tensor) -> Encoder:
        """The columns of some features, in contiguous memory."""
        return replace(
            self,
            W_enc=self.W_enc[:, features].contiguous(),
            b_enc=self.b_enc[features].contiguous(),
            own={name: value[features].contiguous() for name, value in self.own.items()},
        )

    def detached(self) -> Encoder:
        """The same weights, to which no gradients flow."""
        own = {name: value.detach() for name, value in self.own.items()}
        return replace(self, W_enc=self.W_enc.detach(), b_enc=self.b_enc.detach(), own=own)

    def preactivation(self, x_XD: Tensor) -> Tensor:
        """x W_enc + b_enc [..., F]."""
        return linear(x_XD, self.W_enc, self.b_enc)
