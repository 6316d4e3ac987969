"""Residual vector quantisation (SoundStream / EnCodec): each codebook codes what the ones before it left.

Buffer names are EnCodec's (`vq.layers.0._codebook.embed`, ...), so that its and WavTokenizer's checkpoints load.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class EuclideanCodebook(nn.Module):
    """`bins` vectors of `dimension`; learned by exponential moving averages of what is assigned to them."""

    inited: Tensor
    cluster_size: Tensor
    embed: Tensor
    embed_avg: Tensor

    def __init__(self, dimension: int, bins: int) -> None:
        super().__init__()
        self.register_buffer("inited", torch.zeros(1))
        self.register_buffer("cluster_size", torch.zeros(bins))
        self.register_buffer("embed", torch.zeros(bins, dimension))
        self.register_buffer("embed_avg", torch.zeros(bins, dimension))

    def encode(self, x_ND: Tensor) -> Tensor:
        """Index of the nearest vector, [N]."""
        return (x_ND @ self.embed.T - 0.5 * self.embed.square().sum(1)).argmax(1)

    @torch.no_grad()
    def update(self, x_ND: Tensor, codes_N: Tensor, decay: float = 0.99) -> None:
        """One moving-average step; vectors that (almost) nothing is assigned to move to random inputs."""
        bins = len(self.embed)
        if not self.inited:
            self.embed.copy_(x_ND[torch.randint(len(x_ND), (bins,))])
            self.embed_avg.copy_(self.embed)
            self.cluster_size.fill_(1.0)
            self.inited.fill_(1.0)
            codes_N = self.encode(x_ND)
        counts = torch.bincount(codes_N, minlength=bins).to(x_ND)
        sums = torch.zeros_like(self.embed).index_add_(0, codes_N, x_ND)
        self.cluster_size.lerp_(counts, 1 - decay)
        self.embed_avg.lerp_(sums, 1 - decay)
        self.embed.copy_(self.embed_avg / self.cluster_size.clamp(min=1e-3)[:, None])
        dead = self.cluster_size < 0.05
        if dead.any():
            fresh = x_ND[torch.randint(len(x_ND), (int(dead.sum()),))]
            self.embed[dead] = fresh
            self.embed_avg[dead] = fresh
            self.cluster_size[dead] = 1.0


class VectorQuantization(nn.Module):
    def __init__(self, dimension: int, bins: int) -> None:
        super().__init__()
        self._codebook = EuclideanCodebook(dimension, bins)


class ResidualVectorQuantization(nn.Module):
    def __init__(self, dimension: int, bins: int, num_quantizers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(VectorQuantization(dimension, bins) for _ in range(num_quantizers))


class ResidualVectorQuantizer(nn.Module):
    """Latent [B, D, T] to codes [K, B, T] and back."""

    def __init__(self, dimension: int, bins: int, num_quantizers: int) -> None:
        super().__init__()
        self.vq = ResidualVectorQuantization(dimension, bins, num_quantizers)

    def codebooks(self) -> list[EuclideanCodebook]:
        return [module for module in self.vq.modules() if isinstance(module, EuclideanCodebook)]

    def encode(self, z_BDT: Tensor) -> Tensor:
        batch, width, frames = z_BDT.shape
        residual_ND = z_BDT.transpose(1, 2).reshape(-1, width)
        codes = []
        for codebook in self.codebooks():
            index_N = codebook.encode(residual_ND)
            residual_ND = residual_ND - codebook.embed[index_N]
            codes.append(index_N.view(batch, frames))
        return torch.stack(codes)

    def decode(self, codes_KBT: Tensor) -> Tensor:
        """Codes of the first K codebooks; K may be smaller than their number."""
        pairs = zip(codes_KBT, self.codebooks(), strict=False)
        return torch.stack([F.embedding(codes_BT, book.embed) for codes_BT, book in pairs]).sum(0).transpose(1, 2)

    def forward(self, z_BDT: Tensor, count: int | None = None) -> tuple[Tensor, Tensor]:
        """(quantised latent [B, D, T], codes [K, B, T]) of the first `count` codebooks, by default of all."""
        codes_KBT = self.encode(z_BDT)[:count]
        return self.decode(codes_KBT), codes_KBT

    def update(self, z_BDT: Tensor) -> None:
        """One moving-average step of every codebook on a batch of latents (training only)."""
        residual_ND = z_BDT.detach().transpose(1, 2).reshape(-1, z_BDT.shape[1])
        for codebook in self.codebooks():
            codebook.update(residual_ND, codebook.encode(residual_ND))
            residual_ND = residual_ND - codebook.embed[codebook.encode(residual_ND)]
