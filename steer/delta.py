"""From edits to the change at a site: x' = x + decode(f') - decode(f), at the cost of the edit, not of the dictionary.

What the SAE cannot explain stays, and the decoder's bias cancels. Where features are decided one by one (relu,
jumprelu, batchtopk, gated) only the touched columns of W_enc and rows of W_dec are used, gathered once per edit. Top-k
encodes in full where it has to (`steer.picked`), because a feature's rank needs the others, but keeps and changes only
the touched features. With RMS-normalised features every feature moves when one does, so both ends are computed in full.
An SAE that normalises each activation changes it in the activation's own scale.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Literal

import torch
from torch import Tensor

from steer.edits import ActivationEdit, Edit, FeatureEdit, Frames, Shift
from steer.errors import EditError
from steer.kernels import plus_decoded
from steer.sae import SAE, EncodesAndDecodes, check_features, decoded, moved, rms_normalized

Mode = Literal["delta", "reconstruct"]
Step = Callable[[Tensor, Frames], Tensor]
"""New activations [B, T, D] from old ones."""


def steps_of(sae: EncodesAndDecodes | None, edits: Sequence[Edit], mode: Mode = "delta") -> list[Step]:
    """The edits of one site in their order; those of features that follow each other are one step.

    The activation is reconstructed once: with the first edits of features, or before all where there are none.

    Raises:
        EditError: an edit of features, or a reconstruction, without an SAE; and as `SiteEdit`.
    """
    steps: list[Step] = []
    runs = [(direct, list(some)) for direct, some in groupby(edits, lambda edit: isinstance(edit, ActivationEdit))]
    if mode == "reconstruct" and all(direct for direct, _ in runs):
        runs.insert(0, (False, []))
    for direct, some in runs:
        if direct:
            steps += [edit.applied for edit in some if isinstance(edit, ActivationEdit)]
        elif sae is None:
            raise EditError("there is no SAE here: without one there are edits of the activation alone (AddDirection)")
        else:
            steps.append(SiteEdit(sae, some, mode))
            mode = "delta"
    return steps


class SiteEdit:
    """The edits of one site, ready to be applied to its activations: `edit(x_BTD, frames)` gives the new ones.

    Raises:
        EditError: a feature that the SAE does not have, or a vector of another length (found at the first activation if
            the SAE does not say how many features it has).
    """

    def __init__(self, sae: EncodesAndDecodes, edits: Sequence[Edit], mode: Mode = "delta") -> None:
        self.sae, self.edits, self.mode = sae, tuple(edits), mode
        # in the order of the edits, so that a lone edit is of all of them as they lie
        every = (feature for edit in edits if isinstance(edit, FeatureEdit) for feature in edit.features)
        touched = list(dict.fromkeys(every))
        self.touched = torch.tensor(touched, dtype=torch.long)
        d_sae = getattr(sae, "d_sae", None) or getattr(getattr(sae, "cfg", None), "d_sae", None)
        if d_sae is not None:
            self._check(int(d_sae))
        position = {feature: index for index, feature in enumerate(touched)}
        self._columns = {
            index: torch.tensor([position[feature] for feature in edit.features])
            for index, edit in enumerate(edits)
            if isinstance(edit, FeatureEdit) and list(edit.features) != touched
        }
        picked = all(isinstance(edit, FeatureEdit) or type(edit) is Shift for edit in edits)
        if isinstance(sae, SAE) and not sae.rms_norm and mode == "delta" and picked:
            self._gather(sae)
            self.apply = self._apply_touched
        else:
            self.apply = self._apply_full

    def _check(self, d_sae: int) -> None:
        check_features(self.touched, d_sae)
        for edit in self.edits:
            if isinstance(edit, Shift) and len(edit.vector) != d_sae:
                raise EditError(f"the vector has {len(edit.vector)} numbers, the SAE {d_sae} features")

    @torch.no_grad()
    def _gather(self, sae: SAE) -> None:
        """Take the touched columns and rows once; of a shift also what it does to the activation as a whole."""
        touched = self.touched.to(sae.W_dec.device)
        self.W_dec = sae.W_dec[touched].contiguous()
        self.normalized = sae.normalized if sae.normalize else None
        self.features = sae.picked(touched)
        # a vector that is being trained is looked at anew each time, with gradients
        self.vectors = {
            index: None if edit.vector.requires_grad else self._parts(edit.vector)
            for index, edit in enumerate(self.edits)
            if isinstance(edit, Shift)
        }

    def _parts(self, vector_F: Tensor) -> tuple[Tensor, Tensor]:
        """The touched features [S] of a shift, which later edits see, and the direction [D] that the rest of it is."""
        W_dec_FD = self.sae.W_dec.detach()  # type: ignore[attr-defined]
        vector_F = vector_F.to(W_dec_FD)
        inside_S = vector_F[self.touched.to(vector_F.device)]
        return inside_S, vector_F @ W_dec_FD - inside_S @ self.W_dec

    def _shift(self, index: int) -> tuple[Tensor, Tensor]:
        edit = self.edits[index]
        assert isinstance(edit, Shift)
        return self.vectors[index] or self._parts(edit.vector)

    def __call__(self, x_BTD: Tensor, frames: Frames) -> Tensor:
        """New activations, in the dtype of `x_BTD`."""
        if not self.edits and self.mode == "delta":
            return x_BTD
        return self.apply(x_BTD, frames)

    def _edited(self, f_BTS: Tensor, frames: Frames, everything: bool) -> Tensor:
        """The edits one after another, on all features or on the touched ones."""
        for index, edit in enumerate(self.edits):
            if isinstance(edit, Shift) and not everything:
                new_BTS = f_BTS + frames.value(edit.strength, f_BTS) * self._shift(index)[0]
            elif not isinstance(edit, FeatureEdit):
                new_BTS = edit.change(f_BTS, frames)
            else:
                columns = torch.tensor(edit.features) if everything else self._columns.get(index)
                if columns is None:
                    new_BTS = edit.change(f_BTS, frames)
                else:
                    columns = columns.to(f_BTS.device)
                    new_BTS = f_BTS.clone()
                    new_BTS[..., columns] = edit.change(f_BTS[..., columns], frames)
            if edit.during is not None:
                new_BTS = torch.where(frames.within(edit.during), new_BTS, f_BTS)  # type: ignore[arg-type]
            f_BTS = new_BTS
        return f_BTS

    def _difference(self, f_BTS: Tensor, frames: Frames) -> Tensor:
        """What the edits add to the touched features."""
        alone = self.edits[0]
        if len(self.edits) == 1 and isinstance(alone, FeatureEdit) and alone.during is None:
            return alone.difference(f_BTS, frames)
        return self._edited(f_BTS, frames, everything=False) - f_BTS

    def _apply_touched(self, x_BTD: Tensor, frames: Frames) -> Tensor:
        if self.W_dec.device != x_BTD.device:  # the model was moved, and its SAEs with it
            self._gather(self.sae)  # type: ignore[arg-type]
        # only the change is rounded where the SAE is of fewer digits than the model
        new_BTD = x_BTD.to(torch.promote_types(x_BTD.dtype, self.W_dec.dtype))
        seen_BTD, scale_BT1 = x_BTD.to(self.W_dec.dtype), None
        if self.normalized is not None:
            seen_BTD, scale_BT1 = self.normalized(x_BTD)
        if len(self.touched):
            change_BTS = self._difference(self.features(seen_BTD), frames)
            # the change is made in the activation's own scale
            change_BTS = change_BTS if scale_BT1 is None else change_BTS * scale_BT1
            new_BTD = plus_decoded(new_BTD, change_BTS, self.W_dec)
        for index in self.vectors:
            edit, (_, direction_D) = self.edits[index], self._shift(index)
            assert isinstance(edit, Shift)
            amount = frames.value(edit.strength, direction_D)
            if edit.during is not None:
                amount = amount * frames.within(edit.during)  # type: ignore[arg-type]
            amount = amount if scale_BT1 is None else amount * scale_BT1
            new_BTD = new_BTD + amount * direction_D
        return self._within(new_BTD.to(x_BTD.dtype), x_BTD, frames)

    def _apply_full(self, x_BTD: Tensor, frames: Frames) -> Tensor:
        if not self.edits and isinstance(self.sae, SAE):
            return self.sae(x_BTD).to(x_BTD.dtype)
        return self.of_features(self.sae.encode(x_BTD), x_BTD, frames)

    def of_features(self, f_BTF: Tensor, x_BTD: Tensor, frames: Frames) -> Tensor:
        """The same, computed in full, where all features of the activations are known."""
        self._check(f_BTF.shape[-1])
        edited_BTF = self._edited(f_BTF, frames, everything=True)
        if getattr(self.sae, "rms_norm", False) and self.edits:
            # "after re-normalizing to maintain valid activation magnitudes" (arXiv 2510.23802, section 2.2)
            edited_BTF = torch.where((edited_BTF != f_BTF).any(-1, keepdim=True), rms_normalized(edited_BTF), f_BTF)
        if self.mode == "reconstruct":
            return decoded(self.sae, edited_BTF, x_BTD).to(x_BTD.dtype)
        new_BTD = x_BTD + moved(self.sae, edited_BTF, f_BTF, x_BTD)
        return self._within(new_BTD.to(x_BTD.dtype), x_BTD, frames)

    def _within(self, new_BTD: Tensor, x_BTD: Tensor, frames: Frames) -> Tensor:
        if any(edit.during is None for edit in self.edits):
            return new_BTD
        # outside every span the activation stays what it was to the bit, also where x + 0 would round
        inside = frames.within([span for edit in self.edits for span in edit.during])  # type: ignore[union-attr, misc]
        return torch.where(inside, new_BTD, x_BTD)
