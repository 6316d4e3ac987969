"""The SAE activations: how features come of an encoder's products, and what each asks of a training.

`ACTIVATIONS` has them by their names; a new one is a class with `encode` and a line there.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from hooks.extensions import Registry
from steer.encoder import Encoder
from steer.errors import SAEError
from steer.kernels import encode_topk
from steer.parallel import ALONE, Group
from steer.picked import PickedTopK
from steer.sparse_step import Pairs, batch_topk_pairs, topk_pairs

BANDWIDTH = 0.1
"""Width of the window around a jumprelu threshold in which inputs move it. Normalised pre-activations are about 1:
with a far narrower window hardly any input falls into it and the thresholds do not move."""


Penalty = Literal["", "l1", "l0"]


@dataclass(frozen=True)
class Soft:
    """Features [N, F] of a training step, with gradients, before RMS norm; and what else is known of them.

    `pre_NF`: their pre-activations. `count_NF`: 1 where a feature is active, with a gradient that plain comparison
    does not have. `gate_NF`: what decides alone which are active; its sum is the L1 penalty, and it has to reconstruct
    the activation by itself, through a decoder that does not learn from it.
    """

    f_NF: Tensor
    pre_NF: Tensor | None = None
    count_NF: Tensor | None = None
    gate_NF: Tensor | None = None


class Activation(ABC):
    """How features come of an encoder. `encode` is all that one needs to say.

    `parameters`: names of its own parameters [d_sae], beside W_enc and b_enc; they start at 0. `needs_k`: it takes a k.
    `separable`: each feature depends on its own column and parameters alone; then the same function serves the whole
    dictionary and a few picked columns of it. `sparse`: `encode_sparse` gives k features a vector. `chooses`: training
    takes the pairs (vector, feature) that `choose` gives, and no others get a gradient. `penalty`: what makes
    features few in training, if anything has to.
    """

    parameters: tuple[str, ...] = ()
    needs_k = False
    separable = True
    sparse = False
    chooses = False
    penalty: Penalty = ""

    @abstractmethod
    def encode(self, encoder: Encoder, x_XD: Tensor) -> Tensor:
        """Features [..., F] of inputs [..., D]."""

    def encode_sparse(self, encoder: Encoder, x_XD: Tensor) -> tuple[Tensor, Tensor]:
        """The k features of each vector [..., k], some perhaps 0, and their ids, in no order."""
        raise NotImplementedError

    def among(self, encoder: Encoder, features: Tensor) -> Callable[[Tensor], Tensor]:
        """A function from inputs [..., D] to some features [..., j], where the others are needed to tell these."""
        return lambda x_XD: self.encode(encoder, x_XD)[..., features]

    def shifted(self, encoder: Encoder, by_F: Tensor) -> Encoder:
        """An encoder that gives for x what this one gives for x + c, where `by_F` is c W_enc."""
        return replace(encoder, b_enc=encoder.b_enc + by_F)

    # --- training ---

    def begin(self, own: Mapping[str, Tensor]) -> None:  # noqa: B027 - most have nothing to do here
        """Set the own parameters to what a training starts from; one that gradients shall not move needs none."""

    def train(self, encoder: Encoder, x_ND: Tensor) -> Soft:
        """Features of a training step, with gradients for the encoder."""
        return Soft(self.encode(encoder, x_ND))

    def choose(self, encoder: Encoder, x_ND: Tensor, group: Group = ALONE) -> tuple[Pairs, Tensor]:
        """Which features are active in which vectors, and how strong, without gradients."""
        raise NotImplementedError

    def after_step(  # noqa: B027
        self, own: Mapping[str, Tensor], least: Callable[[], Tensor], step: int
    ) -> None:
        """What follows a step of the optimiser, without gradients. `least` gives the smallest feature that was active
        in the batch of all processes, infinite where none was."""


class ReLU(Activation):
    penalty = "l1"

    def encode(self, encoder: Encoder, x_XD: Tensor) -> Tensor:
        return encoder.preactivation(x_XD).relu_()

    def train(self, encoder: Encoder, x_ND: Tensor) -> Soft:
        pre_NF = encoder.preactivation(x_ND)
        return Soft(pre_NF.relu(), pre_NF)


class TopK(Activation):
    """The k largest features of each vector, those of them that are positive (arXiv 2406.04093, section 2.3)."""

    needs_k, separable, sparse, chooses = True, False, True, True

    def encode(self, encoder: Encoder, x_XD: Tensor) -> Tensor:
        return dense(*self.encode_sparse(encoder, x_XD), encoder.b_enc.shape[0])

    def encode_sparse(self, encoder: Encoder, x_XD: Tensor) -> tuple[Tensor, Tensor]:
        assert encoder.k is not None
        values_XK, indices_XK = encode_topk(x_XD, encoder.W_enc, encoder.b_enc, encoder.k)
        return values_XK.relu(), indices_XK

    def among(self, encoder: Encoder, features: Tensor) -> Callable[[Tensor], Tensor]:
        return PickedTopK(encoder, features)

    def choose(self, encoder: Encoder, x_ND: Tensor, group: Group = ALONE) -> tuple[Pairs, Tensor]:
        assert encoder.k is not None
        return topk_pairs(encoder, x_ND, encoder.k)


class JumpReLU(Activation):
    """Features above their own threshold keep their value (arXiv 2407.14435, eq. 3); a negative one counts as 0."""

    parameters = ("threshold",)
    penalty: Penalty = "l0"

    def encode(self, encoder: Encoder, x_XD: Tensor) -> Tensor:
        pre_XF = encoder.preactivation(x_XD)
        return pre_XF.masked_fill_(~(pre_XF > encoder.own["threshold"].clamp(min=0)), 0)

    def begin(self, own: Mapping[str, Tensor]) -> None:
        own["threshold"].fill_(0.1)

    def train(self, encoder: Encoder, x_ND: Tensor) -> Soft:
        """With straight-through gradients for the thresholds (arXiv 2407.14435, eqs. 9 to 12)."""
        pre_NF = encoder.preactivation(x_ND)
        threshold_F = encoder.own["threshold"].detach()
        open_NF = (pre_NF > threshold_F).to(pre_NF)
        window_NF = ((pre_NF - threshold_F).abs() < BANDWIDTH / 2).to(pre_NF) / BANDWIDTH
        zero_F = encoder.own["threshold"] - threshold_F  # its value is 0, its gradient is not
        f_NF = pre_NF * open_NF - (threshold_F * window_NF) * zero_F
        return Soft(f_NF, pre_NF, count_NF=open_NF - window_NF * zero_F)

    def after_step(self, own: Mapping[str, Tensor], least: Callable[[], Tensor], step: int) -> None:
        own["threshold"].clamp_(min=0)


class BatchTopK(JumpReLU):
    """In training the k * N largest features of the batch (arXiv 2412.06410); afterwards a threshold stands for it."""

    needs_k, chooses = True, True
    penalty = ""

    def begin(self, own: Mapping[str, Tensor]) -> None:
        own["threshold"].requires_grad_(False)

    def choose(self, encoder: Encoder, x_ND: Tensor, group: Group = ALONE) -> tuple[Pairs, Tensor]:
        assert encoder.k is not None
        return batch_topk_pairs(encoder, x_ND, encoder.k, group)

    def after_step(self, own: Mapping[str, Tensor], least: Callable[[], Tensor], step: int) -> None:
        """The threshold is a mean of the smallest features that batches kept: a plain one, then over about 100."""
        smallest, threshold_F = least(), own["threshold"]
        # where nothing was active it stays; not an `if`, which would wait for the GPU
        goal_F = torch.where(torch.isfinite(smallest), smallest, threshold_F)
        threshold_F.lerp_(goal_F, max(0.01, 1 / (step + 1)))


class Gated(Activation):
    """A gate decides whether, a magnitude with tied weights how much (arXiv 2404.16014, eq. 6).

    `b_enc` is the gate's bias.
    """

    parameters = ("r_mag", "b_mag")
    penalty = "l1"

    def encode(self, encoder: Encoder, x_XD: Tensor) -> Tensor:
        gate_XF = encoder.preactivation(x_XD)
        return torch.where(gate_XF > 0, self.magnitude(encoder, gate_XF).relu(), 0)

    def magnitude(self, encoder: Encoder, gate_XF: Tensor) -> Tensor:
        return (gate_XF - encoder.b_enc) * encoder.own["r_mag"].exp() + encoder.own["b_mag"]

    def shifted(self, encoder: Encoder, by_F: Tensor) -> Encoder:
        own = {**encoder.own, "b_mag": encoder.own["b_mag"] + by_F * encoder.own["r_mag"].exp()}
        return replace(encoder, b_enc=encoder.b_enc + by_F, own=own)

    def train(self, encoder: Encoder, x_ND: Tensor) -> Soft:
        """The gate's own reconstruction is a loss too (arXiv 2404.16014, eq. 8)."""
        gate_NF = encoder.preactivation(x_ND)
        f_NF = self.magnitude(encoder, gate_NF).relu() * (gate_NF > 0)
        return Soft(f_NF, gate_NF, gate_NF=gate_NF.relu())


def dense(values_XK: Tensor, indices_XK: Tensor, count: int) -> Tensor:
    """Features [..., count] that are 0 but for some, by their ids."""
    return values_XK.new_zeros(*values_XK.shape[:-1], count).scatter_(-1, indices_XK, values_XK)


ACTIVATIONS: Registry[Activation] = Registry(
    "activation",
    SAEError,
    {
        "relu": ReLU(),
        "topk": TopK(),
        "batchtopk": BatchTopK(),
        "jumprelu": JumpReLU(),
        "gated": Gated(),
    },
)
