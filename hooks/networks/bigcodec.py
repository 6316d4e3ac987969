"""BigCodec (arXiv 2409.05377): convolutions with an LSTM on both sides, and one codebook of 8192 in 8 dimensions.

16 kHz speech, 80 frames a second, 159 M parameters. Written here from the paper; what that leaves out (parameter names
and sizes) was read off the authors' code (Aria-K-Alethia/BigCodec, MIT licence), of which nothing is copied, so that
the published checkpoint (`bigcodec.pt` of hub Alethia/BigCodec) loads with `strict=True`. The weights are not part of
this package; their terms are told where they are fetched.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count, takewhile
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn

from hooks.networks.alias_free import AliasFreeSnake
from hooks.networks.seanet import ResidualLSTM
from hooks.networks.weight_norm import WeightNormConv1d, WeightNormConvTranspose1d, WeightNormLinear

PUBLISHED_PARTS = {"CodecEnc": "encoder", "generator": "decoder"}
"""The two state dicts of the published checkpoint, and what those parts are called here."""


@dataclass(frozen=True)
class BigCodecConfig:
    """The defaults are the published model. `ratios` stand in the encoder's order; the decoder walks them backwards."""

    sample_rate: int = 16_000
    n_filters: int = 48
    ratios: tuple[int, ...] = (2, 2, 2, 5, 5)
    dimension: int = 1024
    bins: int = 8192
    code_dim: int = 8

    @property
    def hop_length(self) -> int:
        return math.prod(self.ratios)

    @property
    def frame_rate(self) -> float:
        return self.sample_rate / self.hop_length

    @property
    def width(self) -> int:
        """Of the LSTMs: every block of the encoder doubles the width."""
        return self.n_filters * 2 ** len(self.ratios)

    @classmethod
    def of_checkpoint(cls, checkpoint: Mapping[str, Any]) -> BigCodecConfig:
        """Read off the shapes of a checkpoint; its sampling rate is not among them and stays 16 kHz.

        Raises:
            KeyError: it is not one of BigCodec.
        """
        state = flat(checkpoint)
        downs = (f"encoder.block.{index}.block.4.weight_v" for index in count(1))
        codebook = state["decoder.quantizer.layers.0._codebook.weight"]
        return cls(
            n_filters=len(state["encoder.block.0.bias"]),
            ratios=tuple(state[name].shape[-1] // 2 for name in takewhile(state.__contains__, downs)),
            dimension=len(state["decoder.quantizer.layers.0.out_proj.bias"]),
            bins=codebook.shape[0],
            code_dim=codebook.shape[1],
        )


def flat(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict of a `BigCodec`, from a published checkpoint or as it is."""
    if "CodecEnc" not in checkpoint:
        return dict(checkpoint)
    return {
        f"{ours}.{name}": value
        for theirs, ours in PUBLISHED_PARTS.items()
        for name, value in checkpoint[theirs].items()
    }


class Block(nn.Module):
    """Layers one behind the other."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.block = nn.Sequential(*layers)

    def forward(self, x_BCT: Tensor) -> Tensor:
        return self.block(x_BCT)


class ResidualUnit(Block):
    def __init__(self, width: int, dilation: int) -> None:
        super().__init__(
            AliasFreeSnake(width),
            WeightNormConv1d(width, width, 7, dilation=dilation, padding=3 * dilation),
            AliasFreeSnake(width),
            WeightNormConv1d(width, width, 1),
        )

    def forward(self, x_BCT: Tensor) -> Tensor:
        return x_BCT + super().forward(x_BCT)


def residual_units(width: int) -> list[nn.Module]:
    return [ResidualUnit(width, dilation) for dilation in (1, 3, 9)]


def down(width: int, ratio: int) -> Block:
    """[B, width, T] to [B, 2 * width, T / ratio]."""
    conv = WeightNormConv1d(width, 2 * width, 2 * ratio, stride=ratio, padding=(ratio + 1) // 2)
    return Block(*residual_units(width), AliasFreeSnake(width), conv)


def up(width: int, ratio: int) -> Block:
    """[B, width, T] to [B, width / 2, T * ratio]."""
    conv = WeightNormConvTranspose1d(
        width, width // 2, 2 * ratio, stride=ratio, padding=(ratio + 1) // 2, output_padding=ratio % 2
    )
    return Block(AliasFreeSnake(width), conv, *residual_units(width // 2))


class CodecEncoder(Block):
    """Waveform [B, 1, T * hop] to continuous latent [B, dimension, T]."""

    def __init__(self, config: BigCodecConfig) -> None:
        super().__init__(
            WeightNormConv1d(1, config.n_filters, 7, padding=3),
            *(down(config.n_filters * 2**index, ratio) for index, ratio in enumerate(config.ratios)),
            ResidualLSTM(config.width),
            AliasFreeSnake(config.width),
            WeightNormConv1d(config.width, config.dimension, 3, padding=1),
        )


class FactorizedQuantizer(nn.Module):
    """The nearest vector by angle, sought in a few dimensions (arXiv 2110.04627)."""

    def __init__(self, config: BigCodecConfig) -> None:
        super().__init__()
        self.in_proj = WeightNormLinear(config.dimension, config.code_dim)
        self.out_proj = WeightNormLinear(config.code_dim, config.dimension)
        self._codebook = nn.Embedding(config.bins, config.code_dim)

    def encode(self, z_BDT: Tensor) -> Tensor:
        """Codes [B, T]."""
        direction_BTC = F.normalize(self.in_proj(z_BDT.transpose(1, 2)), dim=-1)
        return (direction_BTC @ F.normalize(self._codebook.weight, dim=-1).T).argmax(-1)

    def decode(self, codes_BT: Tensor) -> Tensor:
        return self.out_proj(self._codebook(codes_BT)).transpose(1, 2)


class Quantizer(nn.Module):
    """Latent [B, D, T] to codes [1, B, T] and back. The checkpoint has a residual quantiser of a single layer."""

    def __init__(self, config: BigCodecConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList([FactorizedQuantizer(config)])

    @property
    def layer(self) -> FactorizedQuantizer:
        return cast(FactorizedQuantizer, self.layers[0])

    def encode(self, z_BDT: Tensor) -> Tensor:
        return self.layer.encode(z_BDT)[None]

    def decode(self, codes_1BT: Tensor) -> Tensor:
        return self.layer.decode(codes_1BT[0])

    def forward(self, z_BDT: Tensor) -> tuple[Tensor, Tensor]:
        """(quantised latent [B, D, T], codes [1, B, T])."""
        codes_1BT = self.encode(z_BDT)
        return self.decode(codes_1BT), codes_1BT


class CodecDecoder(nn.Module):
    """Owns the quantiser: with `vq` it quantises a latent, without it makes the waveform [B, 1, T * hop] of one."""

    def __init__(self, config: BigCodecConfig) -> None:
        super().__init__()
        self.quantizer = Quantizer(config)
        ratios = tuple(reversed(config.ratios))
        self.model = nn.Sequential(
            WeightNormConv1d(config.dimension, config.width, 7, padding=3),
            ResidualLSTM(config.width),
            *(up(config.width // 2**index, ratio) for index, ratio in enumerate(ratios)),
            AliasFreeSnake(config.n_filters),
            WeightNormConv1d(config.n_filters, 1, 7, padding=3),
            nn.Tanh(),
        )

    def forward(self, z_BDT: Tensor, vq: bool = True) -> Tensor | tuple[Tensor, Tensor]:
        return self.quantizer(z_BDT) if vq else self.model(z_BDT)


class BigCodec(nn.Module):
    """Mono waveform [B, samples] to latent [B, dimension, T] at `config.frame_rate` Hz and back."""

    def __init__(self, config: BigCodecConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or BigCodecConfig()
        self.encoder = CodecEncoder(config)
        self.decoder = CodecDecoder(config)

    @property
    def quantizer(self) -> Quantizer:
        return self.decoder.quantizer

    def encode(self, audio_BN: Tensor) -> Tensor:
        """Continuous latent, [B, dimension, ceil(samples / hop)]; the last frame is filled up with silence."""
        rest = -audio_BN.shape[-1] % self.config.hop_length
        return self.encoder(F.pad(audio_BN, (0, rest))[:, None])

    def decode(self, z_BDT: Tensor) -> Tensor:
        """Waveform [B, T * hop] of a latent, continuous or quantised."""
        return self.decoder(z_BDT, vq=False)[:, 0]

    def forward(self, audio_BN: Tensor, quantize: bool = True) -> Tensor:
        """The round trip, cut to the length of the input."""
        z_BDT = self.encode(audio_BN)
        if quantize:
            z_BDT, _ = self.decoder(z_BDT, vq=True)
        return self.decode(z_BDT)[:, : audio_BN.shape[-1]]

    def load_checkpoint_(self, checkpoint: Mapping[str, Any]) -> None:
        """Load, with `strict=True`, a published checkpoint (`{"CodecEnc": ..., "generator": ...}`) or a state dict."""
        self.load_state_dict(flat(checkpoint), strict=True)
