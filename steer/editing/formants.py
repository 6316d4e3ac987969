"""Formants moved: what the latent of a sound becomes when its spectral envelope moves, as shifts of SAE features.

No one direction of the latent moves formants: which channels change depends on the sound. So the codec is asked. The
sound is resampled, which moves pitch and envelope together; its latent, laid over the frames of the original, is the
target of all coordinates but pitch and voicing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hooks import at_time
from hooks.model import Codec
from hooks.samples import resampled
from steer.edits import Shift
from steer.values import Curve, Span

REST = 1e-3
"""The share of the change that may be left out, in root mean square."""


@torch.no_grad()
def change_of_latent(codec: Codec, z_CTD: Tensor, audio_CN: Tensor, semitones: float, start_s: float) -> Tensor:
    """[C, T, D]: what to add to the latent of a sound [C, N], at the codec's rate, so that its formants move; pitch
    and voicing stay."""
    assert codec.sample_rate is not None and codec.free_channels is not None
    ratio = 2 ** (semitones / 12)
    shorter_CN = resampled(audio_CN.float().cpu(), codec.sample_rate * ratio, codec.sample_rate)
    with at_time(start_s):
        moved_CTD = codec.encode(shorter_CN[:, None].to(codec.device, codec.dtype)).to(z_CTD)
    last = moved_CTD.shape[1] - 1
    place_T = ((torch.arange(z_CTD.shape[1], device=z_CTD.device) + 0.5) / ratio - 0.5).clamp(0, last)
    left_T = place_T.long()
    share_T1 = (place_T - left_T)[:, None].to(z_CTD)
    change_CTD = torch.zeros_like(z_CTD)
    moved_CTD = torch.lerp(moved_CTD[:, left_T], moved_CTD[:, (left_T + 1).clamp(max=last)], share_T1)
    free = codec.free_channels
    change_CTD[..., free] = (moved_CTD - z_CTD)[..., free]
    return change_CTD


def as_shifts(change_TD: Tensor, W_dec: Tensor, seconds_T: Tensor, during: Sequence[Span] | None) -> list[Shift]:
    """Shifts along a few vectors of features, with strengths over time, that change the activation by `change_TD`.

    The vectors are the change's principal directions through the pseudo-inverse of the decoder [F, D], exact where the
    decoder's rows span the activation.
    """
    U_TK, S_K, V_KD = torch.linalg.svd(change_TD.detach().double().cpu(), full_matrices=False)
    left = S_K.square().flip(0).cumsum(0).flip(0)
    kept = int((left > REST**2 * left[0]).sum())
    vectors_KF = V_KD[:kept] @ torch.linalg.pinv(W_dec.detach().double().cpu())
    strengths_TK = U_TK[:, :kept] * S_K[:kept]
    times = seconds_T.tolist()
    return [
        Shift(
            vector_F.to(W_dec.dtype),
            Curve(tuple(zip(times, strength_T.tolist(), strict=True))),
            during=during,
        )
        for vector_F, strength_T in zip(vectors_KF, strengths_TK.T, strict=True)
    ]
