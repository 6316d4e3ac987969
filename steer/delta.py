"""From edits to the change at a site: x' = x + decode(f') - decode(f), at the cost of the edit, not of the dictionary.

What the SAE cannot explain stays, and the decoder's bias cancels. Where features are decided one by one (relu,
jumprelu, batchtopk, gated) only the touched columns of W_enc and rows of W_dec are used, gathered once per edit. Top-k
encodes in full where it has to (`steer.picked`), because a feature's rank needs the others, but keeps and changes only
the touched features. With RMS-normalised features every feature moves when one does, so both ends are computed in full.
An SAE that normalises each activation changes it in the activation's own scale.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Literal

import torch
from torch import Tensor

from steer.decoding import decoded, moved
from steer.edits import Edit
from steer.errors import EditError
from steer.fused import FusedEdit
from steer.kernels import plus_decoded
from steer.sae import SAE, EncodesAndDecodes, rms_normalized
from steer.values import Frames

Mode = Literal["delta", "reconstruct"]
Step = Callable[[Tensor, Frames], Tensor]
"""New activations [B, T, D] from old ones."""


def steps_of(sae: EncodesAndDecodes | None, edits: Sequence[Edit], mode: Mode = "delta") -> list[Step]:
    """The edits of one site in their order; those of features that follow each other are one step.

    The activation is reconstructed once: with the first edits of features, or before all where there are none.

    Raises:
        EditError: an edit of features, or a reconstruction, without an SAE; and as `site_edit`.
    """
    check_unconditional(edits)
    steps: list[Step] = []
    runs = [(of_features, list(some)) for of_features, some in groupby(edits, lambda edit: edit.of_features)]
    if mode == "reconstruct" and not any(of_features for of_features, _ in runs):
        runs.insert(0, (True, []))
    for of_features, some in runs:
        if not of_features:
            steps += [edit.applied for edit in some]
        elif sae is None:
            raise EditError("there is no SAE here: without one there are edits of the activation alone (AddDirection)")
        else:
            steps.append(site_edit(sae, some, mode))
            mode = "delta"
    return steps


def site_edit(sae: EncodesAndDecodes, edits: Sequence[Edit], mode: Mode = "delta") -> SiteEdit:
    """The edits of one site, ready to be applied to its activations, in the way that costs least.

    Raises:
        EditError: a feature that the SAE does not have, or a vector of another length (found at the first activation if
            the SAE does not say how many features it has).
    """
    check_unconditional(edits)
    d_sae = getattr(sae, "d_sae", None) or getattr(getattr(sae, "cfg", None), "d_sae", None)
    if d_sae is not None:
        check(edits, int(d_sae))
    if isinstance(sae, SAE) and not sae.rms_norm and mode == "delta":
        touched = touched_by(edits)
        if all(edit.among(touched) is not None for edit in edits):
            return PickedEdit(sae, edits)
    return FullEdit(sae, edits, mode)


def touched_by(edits: Sequence[Edit]) -> tuple[int, ...]:
    """The features that they change each by itself, in their order: a lone edit is of all of them as they lie."""
    return tuple(dict.fromkeys(feature for edit in edits for feature in edit.touched))


def check_unconditional(edits: Sequence[Edit]) -> None:
    """Raises EditError for an edit behind a gate, which only a `SteeredModel` can ask."""
    if any(edit.when is not None for edit in edits):
        raise EditError("an edit with a gate (when) is made by SteeredModel.edit or apply, which know the gate's site")


def check(edits: Sequence[Edit], d_sae: int) -> None:
    """Raises EditError where one of the edits is not for an SAE of so many features."""
    for edit in edits:
        edit.check(d_sae)


class SiteEdit(ABC):
    """The edits of one site: `edit(x_BTD, frames)` gives new activations, in the dtype of `x_BTD`.

    `touched` are the features that they change each by itself.
    """

    def __init__(self, edits: Sequence[Edit]) -> None:
        self.edits, self.touched = tuple(edits), touched_by(edits)

    @abstractmethod
    def __call__(self, x_BTD: Tensor, frames: Frames) -> Tensor: ...

    def within(self, new_BTD: Tensor, x_BTD: Tensor, frames: Frames) -> Tensor:
        """The new activation, and what it was to the bit outside every span, also where x + 0 would round."""
        if any(edit.during is None for edit in self.edits):
            return new_BTD
        return torch.where(frames.within([span for edit in self.edits for span in edit.spans]), new_BTD, x_BTD)


class PickedEdit(SiteEdit):
    """By the touched features [S] alone, and by what shifts do to the activation through all the others."""

    def __init__(self, sae: SAE, edits: Sequence[Edit]) -> None:
        super().__init__(edits)
        self.sae = sae
        self._gather()

    @torch.no_grad()
    def _gather(self) -> None:
        """Take the touched columns and rows once, on the device where the SAE is."""
        touched_S = torch.tensor(self.touched, dtype=torch.long, device=self.sae.W_dec.device)
        self.W_dec_SD = self.sae.W_dec[touched_S].contiguous()
        self.features = self.sae.picked(touched_S)
        self.parts = [None if edit.learned else self._part(edit) for edit in self.edits]
        parts = [part[0] for part in self.parts if part is not None and part[1] is None]
        whole = len(parts) == len(self.edits)
        self.fused = FusedEdit.of(self.sae, parts, touched_S, self.W_dec_SD) if whole else None

    def _part(self, edit: Edit) -> tuple[Edit, Tensor | None]:
        """The edit of the touched features, and what it adds to the activation [D] besides."""
        part = edit.among(self.touched)
        assert part is not None
        return part, edit.push(self.touched, self.sae.W_dec.detach())

    def __call__(self, x_BTD: Tensor, frames: Frames) -> Tensor:
        if not self.edits:
            return x_BTD
        W_dec_FD = self.sae.W_dec
        if (self.W_dec_SD.device, self.W_dec_SD.dtype) != (W_dec_FD.device, W_dec_FD.dtype):
            self._gather()  # the model was moved, and its SAEs with it
        if self.fused is not None and self.fused.takes(x_BTD):
            return self.fused(x_BTD)
        # only the change is rounded where the SAE is of fewer digits than the model
        new_BTD = x_BTD.to(torch.promote_types(x_BTD.dtype, self.W_dec_SD.dtype))
        seen_BTD, scale_BT1 = self.sae.normalized(x_BTD)
        parts = [part or self._part(edit) for part, edit in zip(self.parts, self.edits, strict=True)]
        if len(self.touched):
            change_BTS = difference([part for part, _ in parts], self.features(seen_BTD), frames)
            # the change is made in the activation's own scale
            change_BTS = change_BTS if scale_BT1 is None else change_BTS * scale_BT1
            new_BTD = plus_decoded(new_BTD, change_BTS, self.W_dec_SD)
        for part, push_D in parts:
            if push_D is not None:
                amount = part.amount(frames, push_D)
                new_BTD = new_BTD + (amount if scale_BT1 is None else amount * scale_BT1) * push_D
        return self.within(new_BTD.to(x_BTD.dtype), x_BTD, frames)


class FullEdit(SiteEdit):
    """By all features, of any object that encodes and decodes."""

    def __init__(self, sae: EncodesAndDecodes, edits: Sequence[Edit], mode: Mode = "delta") -> None:
        super().__init__(edits)
        self.sae, self.mode = sae, mode

    def __call__(self, x_BTD: Tensor, frames: Frames) -> Tensor:
        if not self.edits and self.mode == "delta":
            return x_BTD
        if not self.edits and isinstance(self.sae, SAE):
            return self.sae(x_BTD).to(x_BTD.dtype)
        return self.of_features(self.sae.encode(x_BTD), x_BTD, frames)

    def of_features(self, f_BTF: Tensor, x_BTD: Tensor, frames: Frames) -> Tensor:
        """The same, where all features of the activations are known."""
        check(self.edits, f_BTF.shape[-1])
        edited_BTF = edited(self.edits, f_BTF, frames)
        if getattr(self.sae, "rms_norm", False) and self.edits:
            # "after re-normalizing to maintain valid activation magnitudes" (arXiv 2510.23802, section 2.2)
            edited_BTF = torch.where((edited_BTF != f_BTF).any(-1, keepdim=True), rms_normalized(edited_BTF), f_BTF)
        if self.mode == "reconstruct":
            return decoded(self.sae, edited_BTF, x_BTD).to(x_BTD.dtype)
        new_BTD = x_BTD + moved(self.sae, edited_BTF, f_BTF, x_BTD)
        return self.within(new_BTD.to(x_BTD.dtype), x_BTD, frames)


def edited(edits: Sequence[Edit], f_BTF: Tensor, frames: Frames) -> Tensor:
    """The edits one after another."""
    for edit in edits:
        f_BTF = edit.applied(f_BTF, frames)
    return f_BTF


def difference(edits: Sequence[Edit], f_BTS: Tensor, frames: Frames) -> Tensor:
    """What the edits add to the features together."""
    if len(edits) == 1 and edits[0].during is None:
        return edits[0].delta(f_BTS, frames)
    return edited(edits, f_BTS, frames) - f_BTS
