"""The direction of a source-filter codec's latent along which its voiced frames become whispered ones.

The voicing coordinate alone does not do it: the decoder reads from all free channels how much of a band is harmonic. So
the direction is found through the decoder, whose harmonic filter is to sink below its noise filter, and whose noise
filter is to take over the power of both.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from hooks.families.source_filter import SourceFilterCodec
from hooks.networks.source_filter import SETS

FRAMES, BATCH, STEPS, RATE = 75, 8, 250, 0.02
BELOW = 2.0
"""How far (natural logarithm of an amplitude) the harmonics are to be below the noise."""
AUDIBLE = 5.0
"""Bands this far below the loudest one of a frame count half."""
VOICED = 0.5


def whisper_loss(codec: SourceFilterCodec, z_BTD: Tensor, direction_D: Tensor) -> Tensor:
    """How far frames moved by the direction, times their voicing, are from a whisper."""
    decoder = codec.module.decoder
    voicing_BT1 = codec.voicing(z_BTD)[..., None]
    with torch.no_grad():
        harmonic_BTK, noise_BTK = decoder.filters(z_BTD.transpose(1, 2))
        total_BTK = 0.5 * torch.logaddexp(2 * harmonic_BTK, 2 * noise_BTK)
        audible_BTK = torch.sigmoid(total_BTK - total_BTK.amax(2, keepdim=True) + AUDIBLE)
        weight_BT1 = (voicing_BT1.repeat_interleave(SETS, 1) > VOICED).float()
    free_D = torch.cat([torch.zeros(1), direction_D[1:]])
    harmonic_BTK, moved_BTK = decoder.filters((z_BTD + voicing_BT1 * free_D).transpose(1, 2))
    over_BTK = (harmonic_BTK - moved_BTK + BELOW).relu().square() * weight_BT1
    off_BTK = (moved_BTK - total_BTK).square() * audible_BTK * weight_BT1
    voiced = weight_BT1.sum().clamp(min=1) * total_BTK.shape[2]
    return over_BTK.sum() / voiced + off_BTK.sum() / (audible_BTK * weight_BT1).sum().clamp(min=1)


def whisper_direction(codec: SourceFilterCodec, latents: Sequence[Tensor], steps: int = STEPS, seed: int = 0) -> Tensor:
    """The direction [D] for a full whisper, from latents [T, D] of recordings with voice; 0 on the pitch coordinate.

    Segments are `FRAMES` frames, or as many as the longest latent has; shorter ones are left out.
    """
    generator = torch.Generator().manual_seed(seed)
    frames = min(FRAMES, max(map(len, latents)))
    long = [z_TD for z_TD in latents if len(z_TD) >= frames]
    direction_D = torch.zeros(latents[0].shape[1])
    direction_D[1] = -3.0
    direction_D.requires_grad_()
    optimizer = torch.optim.Adam([direction_D], lr=RATE)

    def below(count: int) -> int:
        return int(torch.randint(count, (), generator=generator))

    for _ in range(steps):
        chosen = [long[below(len(long))] for _ in range(BATCH)]
        starts = [below(len(z_TD) - frames + 1) for z_TD in chosen]
        z_BTD = torch.stack([z_TD[start : start + frames] for z_TD, start in zip(chosen, starts, strict=True)])
        loss = whisper_loss(codec, z_BTD, direction_D)
        # of the direction alone: the codec's weights are not to gather gradients
        (direction_D.grad,) = torch.autograd.grad(loss, direction_D)
        optimizer.step()
    found_D = direction_D.detach()
    found_D[0] = 0
    return found_D
