"""A training pass of an SAE: the reconstruction of a batch with gradients, and what objectives are made of.

Activations are in the normalised space (mean length sqrt(D)), and the rows of the decoder have length 1. All sums are
means over the vectors: with several processes, over those of one's own. Only batchtopk looks at the others'.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor, nn

from steer.activations import Soft
from steer.parallel import ALONE, Group
from steer.sae import MIN_RMS, SAE
from steer.sparse_step import DecodePairs, EncodePairs

AUX_WEIGHT = 1 / 32
"""Weight of the auxiliary loss (arXiv 2406.04093, section 2.4)."""


class Pass(ABC):
    """The pass of a batch `x_ND`.

    `y_ND` is its reconstruction, `own` what the activation itself adds to any loss (of gated SAEs, the error of the
    gate's reconstruction). `count_F` says in how many vectors each feature was active, `least` what the smallest active
    feature was (infinite where none was).
    """

    y_ND: Tensor
    own: Tensor
    count_F: Tensor
    least: Tensor

    def __init__(self, sae: SAE, x_ND: Tensor) -> None:
        self.sae, self.x_ND = sae, x_ND

    def error_of(self, y_ND: Tensor) -> Tensor:
        """The squared error of a reconstruction, summed over the channels."""
        return nn.functional.mse_loss(y_ND.float(), self.x_ND, reduction="sum") / len(self.x_ND)

    @cached_property
    def error(self) -> Tensor:
        """That of the reconstruction."""
        return self.error_of(self.y_ND)

    @property
    @abstractmethod
    def l1(self) -> Tensor:
        """The sum of the features, behind RMS norm: before it, it could be made small by small weights alone."""

    @property
    @abstractmethod
    def l0(self) -> Tensor:
        """The number of active features, with gradients where the activation has some for it (jumprelu)."""

    @property
    def penalty(self) -> Tensor:
        """Whichever of both keeps this activation's features few, or 0 where its k does."""
        penalty = self.sae.function.penalty
        return getattr(self, penalty) if penalty else self.x_ND.new_zeros(())

    @abstractmethod
    def pre(self, features: Tensor) -> Tensor:
        """Pre-activations [N, j] of some features, with gradients."""

    @abstractmethod
    def partial(self, begin: int, end: int) -> Tensor:
        """What the features from `begin` to before `end` add to the reconstruction [N, D]."""

    def nested(self, ends: Sequence[int]) -> list[Tensor]:
        """Reconstructions [N, D] from the features before each of `ends`, which rise."""
        found, y_ND = [], self.sae.b_dec.expand_as(self.x_ND)
        for begin, end in pairwise([0, *ends]):
            y_ND = y_ND + self.partial(begin, end)
            found.append(y_ND)
        return found


class DensePass(Pass):
    """From all features."""

    def __init__(self, sae: SAE, x_ND: Tensor, soft: Soft) -> None:
        super().__init__(sae, x_ND)
        self.soft = soft
        _ = self.penalty  # first, as gradients are added up in the order of what is computed
        self.f_NF = soft.f_NF / rms_of(sae, soft.f_NF)
        self.y_ND = sae.decode(self.f_NF)
        seen_NF = soft.f_NF.detach()
        self.least = torch.where(seen_NF > 0, seen_NF, torch.inf).amin()
        self.count_F = (seen_NF > 0).sum(0)
        self.own = x_ND.new_zeros(())
        if soft.gate_NF is not None:
            alone_ND = soft.gate_NF @ sae.W_dec.detach() + sae.b_dec.detach()
            self.own = (x_ND - alone_ND).square().sum(-1).mean()

    @cached_property
    def l1(self) -> Tensor:
        gate_NF, f_NF = self.soft.gate_NF, self.soft.f_NF
        return (f_NF / rms_of(self.sae, f_NF) if gate_NF is None else gate_NF).sum(-1).mean()

    @cached_property
    def l0(self) -> Tensor:
        count_NF = self.soft.count_NF
        return ((self.soft.f_NF > 0).to(self.x_ND) if count_NF is None else count_NF).sum(-1).mean()

    def pre(self, features: Tensor) -> Tensor:
        if self.soft.pre_NF is not None:
            return self.soft.pre_NF[:, features]
        return self.sae.encoder(features).preactivation(self.x_ND)

    def partial(self, begin: int, end: int) -> Tensor:
        return self.f_NF[:, begin:end] @ self.sae.W_dec[begin:end]


class ChosenPass(Pass):
    """From the pairs that an activation chooses: nothing of size [N, F] is kept."""

    def __init__(self, sae: SAE, x_ND: Tensor, group: Group = ALONE) -> None:
        super().__init__(sae, x_ND)
        with torch.no_grad():
            pairs, values_P = sae.function.choose(sae.encoder(), x_ND, group)
            values_P = values_P.to(x_ND.dtype)  # under autocast the product is in half precision, and nothing else
        centre_D = sae.b_dec if sae.center else None
        values_P = f_P = EncodePairs.apply(pairs, values_P, x_ND, sae.W_enc, sae.b_enc, centre_D)
        if sae.rms_norm:
            square_N = f_P.new_zeros(pairs.rows).index_add(0, pairs.rows_P, f_P.square())
            f_P = f_P / (square_N / pairs.features).clamp(min=MIN_RMS**2).sqrt()[pairs.rows_P]
        self.pairs, self.f_P, self.values_P = pairs, f_P, values_P.detach()
        self.y_ND = DecodePairs.apply(pairs, f_P, sae.W_dec) + sae.b_dec
        self.count_F = pairs.count_F
        self.least = pairs.least(self.values_P)
        self.own = x_ND.new_zeros(())

    @property
    def l1(self) -> Tensor:
        return self.f_P.sum() / len(self.x_ND)

    @property
    def l0(self) -> Tensor:
        return self.pairs.active(self.f_P)

    def pre(self, features: Tensor) -> Tensor:
        return self.sae.encoder(features).preactivation(self.x_ND)

    def partial(self, begin: int, end: int) -> Tensor:
        some, f_P = self.pairs.between(begin, end, self.f_P)
        return DecodePairs.apply(some, f_P, self.sae.W_dec[begin:end])


def run_pass(sae: SAE, x_ND: Tensor, group: Group = ALONE) -> Pass:
    """The pass of a batch [N, D], or of one's own share of it, in the way of the SAE's activation."""
    if sae.function.chooses:
        return ChosenPass(sae, x_ND, group)
    return DensePass(sae, x_ND, sae.function.train(sae.encoder(), x_ND))


def rms_of(sae: SAE, f_NF: Tensor) -> Tensor | float:
    """What the features are divided by: 1, or with RMS norm their root mean square [N, 1]."""
    # clamped before the root, whose gradient is infinite at 0, where nothing is active
    return f_NF.square().mean(-1, keepdim=True).clamp(min=MIN_RMS**2).sqrt() if sae.rms_norm else 1.0


def auxiliary(run: Pass, dead: Tensor) -> Tensor:
    """Dead features try to explain what the living ones leave over (AuxK, arXiv 2406.04093, section 2.4).

    `dead` [j] are their ids. The k largest count whatever their sign: a feature that died because its input is never
    positive would get no gradient through a rectifier.
    """
    sae, error_ND = run.sae, run.x_ND - run.y_ND.float()
    pre_NJ = run.pre(dead)
    values, indices = pre_NJ.topk(min(max(sae.d_in // 2, 1), len(dead)), sorted=False)
    z_NJ = torch.zeros_like(pre_NJ).scatter(-1, indices, values)
    # rows of length 1, also with RMS norm, where they could otherwise answer by shrinking
    rows_JD = nn.functional.normalize(sae.W_dec[dead], dim=1)
    return AUX_WEIGHT * (z_NJ @ rows_JD - error_ND.detach()).square().sum(-1).mean()
