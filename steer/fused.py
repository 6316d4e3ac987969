"""`FusedEdit`: an edit of a few features that each are one number of their own, as one kernel on a GPU.

Ablating, clamping and scaling all make factor * f + offset of a feature f, so that any chain of them is such a pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steer.activations import BatchTopK, JumpReLU, ReLU
from steer.edits import Ablate, Clamp, Edit, Scale
from steer.kernels import usable
from steer.sae import SAE
from steer.values import Frames


@dataclass(frozen=True)
class FusedEdit:
    """The picked weights [S, D] and, for each of the features [S], its bias, threshold, factor and offset.

    A NaN in an activation counts as features of 0: it stays where it is.
    """

    W_enc_SD: Tensor
    bias_S: Tensor
    threshold_S: Tensor
    factor_S: Tensor
    offset_S: Tensor
    W_dec_SD: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, sae: SAE, edits: Sequence[Edit], touched_S: Tensor, W_dec_SD: Tensor) -> FusedEdit | None:
        """That of edits of the touched features alone, or None where they, the SAE or the device are not for it."""
        simple = all(is_simple(edit) for edit in edits) and type(sae.function) in (ReLU, JumpReLU, BatchTopK)
        if W_dec_SD.device.type not in usable.devices or not simple or sae.normalize or not usable.suits(W_dec_SD):
            return None
        from steer.kernels.gpu import edit as gpu_edit

        if not 0 < len(touched_S) <= gpu_edit.MOST:
            return None
        encoder = sae.encoder(touched_S)
        frames = Frames(1, 1, 1.0, 0.0, W_dec_SD.device)
        at_0, at_1 = W_dec_SD.new_zeros(1, 1, len(touched_S)), W_dec_SD.new_ones(1, 1, len(touched_S))
        for edit in edits:
            at_0, at_1 = edit.applied(at_0, frames), edit.applied(at_1, frames)
        return cls(
            encoder.W_enc.T.contiguous(),
            encoder.b_enc,
            encoder.own["threshold"].clamp(min=0) if encoder.own else torch.zeros_like(encoder.b_enc),
            (at_1 - at_0).flatten(),
            at_0.flatten(),
            W_dec_SD.detach(),
        )

    def takes(self, x_BTD: Tensor) -> bool:
        """Whether the kernel edits these activations: they need no gradient, and are of a dtype that it knows."""
        learns = torch.is_grad_enabled() and x_BTD.requires_grad
        autocast = torch.is_autocast_enabled(x_BTD.device.type)
        return not learns and not autocast and usable.suits(x_BTD, self.W_dec_SD)

    def __call__(self, x_BTD: Tensor) -> Tensor:
        from steer.kernels.gpu import edit as gpu_edit

        return gpu_edit.edit(
            x_BTD,
            self.W_enc_SD,
            self.bias_S,
            self.threshold_S,
            self.factor_S,
            self.offset_S,
            self.W_dec_SD,
        )


def is_simple(edit: Edit) -> bool:
    """Whether it does the same to a feature in all frames and rows, by a plain number if by any."""
    value = edit.value if isinstance(edit, Clamp) else edit.factor if isinstance(edit, Scale) else 0
    return type(edit) in (Ablate, Clamp, Scale) and edit.during is None and isinstance(value, int | float)
