"""A few features of a top-k SAE: which vectors have them among their k largest, and how strong."""

from __future__ import annotations

import torch
from torch import Tensor

from steer.encoder import Encoder
from steer.kernels import chunks, encode_topk, kth_at_least, topk
from steer.matmul import linear

FEW = 16
"""Up to so many features the vectors that may have one are looked for first."""
PART = 8
"""One feature in so many takes part in that."""


class PickedTopK:
    """`picked(x_XD)` gives the features `touched` [..., S] that encoding in full gives, without the others.

    A feature's rank needs all features. But the k-th largest of some of them is at most the k-th largest of all, so on
    a CPU a vector in which no picked feature reaches that bound is not encoded further; or, where many are picked, it
    is encoded and not ranked further.
    """

    def __init__(self, encoder: Encoder, touched: Tensor) -> None:
        assert encoder.k is not None
        self.encoder, self.touched, self.k, self.count = encoder, touched, encoder.k, len(touched)
        d_sae = encoder.b_enc.shape[0]
        # where a feature goes; those that are not picked go to one place more, which is cut off
        self.place_F = touched.new_full((d_sae,), self.count)
        self.place_F[touched] = torch.arange(self.count, device=touched.device)
        self.some: Encoder | None = None
        if touched.is_cpu and self.count <= FEW and d_sae // PART >= 2 * encoder.k:
            self.few = encoder.pick(touched)
            self.some = encoder.pick(torch.arange(0, d_sae, PART))

    def __call__(self, x_XD: Tensor) -> Tensor:
        x_ND = x_XD.reshape(-1, x_XD.shape[-1])
        if self.some is None:
            f_NS = self._encoded(x_ND)
        else:
            rows_M = self._candidates(x_ND, self.some)
            f_NS = x_ND.new_zeros(len(x_ND), self.count).index_copy(0, rows_M, self._encoded(x_ND[rows_M]))
        return f_NS.view(*x_XD.shape[:-1], self.count)

    def _encoded(self, x_ND: Tensor) -> Tensor:
        W_DF, b_F = self.encoder.W_enc, self.encoder.b_enc
        parts = [self._picked(linear(chunk_ND, W_DF, b_F)) for chunk_ND in chunks(x_ND, len(b_F))]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _picked(self, pre_NF: Tensor) -> Tensor:
        """The picked features [N, S] of pre-activations of all."""
        if not pre_NF.is_cpu:
            return self._kept(pre_NF)
        with torch.no_grad():
            best_N = pre_NF[:, self.touched].amax(-1)
            rows_M = ((best_N > 0) & (best_N >= kth_at_least(pre_NF, self.k))).nonzero()[:, 0]
        kept_MS = self._kept(pre_NF[rows_M])
        return kept_MS.new_zeros(len(pre_NF), self.count).index_copy(0, rows_M, kept_MS)

    def _kept(self, pre_NF: Tensor) -> Tensor:
        values_NK, indices_NK = topk(pre_NF, self.k)
        f_NS = values_NK.new_zeros(len(pre_NF), self.count + 1)
        return f_NS.scatter_(-1, self.place_F[indices_NK], values_NK.relu())[:, : self.count]

    @torch.no_grad()
    def _candidates(self, x_ND: Tensor, some: Encoder) -> Tensor:
        """The rows [M] in which a picked feature may be one of the k largest, and positive."""
        best_N = self.few.preactivation(x_ND).amax(-1)
        rows_M = (best_N > 0).nonzero()[:, 0]
        x_MD, best_M = x_ND[rows_M], best_N[rows_M]
        bound_M = encode_topk(x_MD, some.W_enc, some.b_enc, self.k)[0].amin(-1)
        # products of other shapes round otherwise; the full encoding decides where it is close
        close_M = 32 * torch.finfo(x_ND.dtype).eps * x_MD.norm(dim=-1) * self.few.W_enc.norm(dim=0).amax()
        return rows_M[best_M >= bound_M - close_M]
