"""WavTokenizer (arXiv 2408.16532): SEANet encoder, one vector quantiser, Vocos decoder with an inverse STFT head.

Module and parameter names are those of the published checkpoints, and none of the authors' code
(jishengpeng/WavTokenizer, MIT licence) is here. What those hold beside the codec's `PARTS` (discriminators, losses) is
dropped by `load_checkpoint_`, and so is the SEANet decoder in them, which nothing uses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import count, takewhile

import torch
from torch import Tensor, nn

from hooks.networks.residual_vq import ResidualVectorQuantizer
from hooks.networks.seanet import SEANetEncoder
from hooks.networks.vocos import ISTFTHead, VocosBackbone

PARTS = ("feature_extractor.", "backbone.", "head.")
UNUSED = "feature_extractor.encodec.decoder."
ENCODER = "feature_extractor.encodec.encoder.model"
CODEBOOKS = "feature_extractor.encodec.quantizer.vq.layers"


@dataclass(frozen=True)
class WavTokenizerConfig:
    """The defaults are the published 75 Hz model; `ratios=(6, 5, 5, 4), n_fft=2400` is the 40 Hz one."""

    sample_rate: int = 24_000
    dimension: int = 512
    n_filters: int = 32
    ratios: tuple[int, ...] = (8, 5, 4, 2)
    bins: int = 4096
    num_quantizers: int = 1
    width: int = 768
    hidden: int = 2304
    num_layers: int = 12
    num_conditions: int | None = 4
    attention: bool = True
    n_fft: int = 1280
    phase_pair: bool = False

    @property
    def hop_length(self) -> int:
        return math.prod(self.ratios)

    @property
    def frame_rate(self) -> float:
        return self.sample_rate / self.hop_length

    def to_dict(self) -> dict[str, object]:
        return {**asdict(self), "ratios": list(self.ratios)}

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> WavTokenizerConfig:
        return cls(**{**values, "ratios": tuple(values["ratios"])})  # type: ignore[arg-type]

    @classmethod
    def of_checkpoint(cls, state: Mapping[str, Tensor]) -> WavTokenizerConfig:
        """Read off the shapes of a state dict; its sampling rate is not among them and stays 24 kHz.

        Raises:
            KeyError: it is not one of WavTokenizer.
        """
        # a stage of the encoder is residual unit, ELU, down; behind the last one comes an LSTM instead of a unit
        units = takewhile(lambda index: f"{ENCODER}.{index}.shortcut.conv.conv.bias" in state, count(1, 3))
        ratios = [state[f"{ENCODER}.{index + 2}.conv.conv.weight_v"].shape[-1] // 2 for index in units]
        books = takewhile(state.__contains__, (f"{CODEBOOKS}.{index}._codebook.embed" for index in count()))
        blocks = takewhile(state.__contains__, (f"backbone.convnext.{index}.gamma" for index in count()))
        conditions = state.get("backbone.norm.scale.weight")
        n_fft = len(state["head.istft.window"])
        return cls(
            dimension=state["backbone.embed.weight"].shape[1],
            n_filters=len(state[f"{ENCODER}.0.conv.conv.bias"]),
            ratios=tuple(reversed(ratios)),
            bins=len(state[f"{CODEBOOKS}.0._codebook.embed"]),
            num_quantizers=len(list(books)),
            width=len(state["backbone.embed.bias"]),
            hidden=len(state["backbone.convnext.0.pwconv1.bias"]),
            num_layers=len(list(blocks)),
            num_conditions=None if conditions is None else len(conditions),
            attention="backbone.pos_net.0.conv1.weight" in state,
            n_fft=n_fft,
            phase_pair=len(state["head.out.bias"]) == 3 * (n_fft // 2 + 1),
        )


class _Encodec(nn.Module):
    def __init__(self, config: WavTokenizerConfig) -> None:
        super().__init__()
        self.encoder = SEANetEncoder(config.dimension, config.n_filters, config.ratios)
        self.quantizer = ResidualVectorQuantizer(config.dimension, config.bins, config.num_quantizers)


class _FeatureExtractor(nn.Module):
    def __init__(self, config: WavTokenizerConfig) -> None:
        super().__init__()
        self.encodec = _Encodec(config)


class WavTokenizer(nn.Module):
    """Mono waveform [B, samples] to latent [B, dimension, T] at `config.frame_rate` Hz and back."""

    def __init__(self, config: WavTokenizerConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or WavTokenizerConfig()
        self.feature_extractor = _FeatureExtractor(config)
        self.backbone = VocosBackbone(
            config.dimension, config.width, config.hidden, config.num_layers, config.num_conditions, config.attention
        )
        self.head = ISTFTHead(config.width, config.n_fft, config.hop_length, config.phase_pair)

    @property
    def encoder(self) -> SEANetEncoder:
        return self.feature_extractor.encodec.encoder

    @property
    def quantizer(self) -> ResidualVectorQuantizer:
        return self.feature_extractor.encodec.quantizer

    def encode(self, audio_BN: Tensor) -> Tensor:
        """Continuous latent, [B, dimension, ceil(samples / hop)]."""
        return self.encoder(audio_BN[:, None])

    def decode(self, z_BDT: Tensor) -> Tensor:
        """Waveform [B, T * hop] of a latent, continuous or quantised."""
        condition = None
        if self.config.num_conditions:
            # the published checkpoints were trained with four equal bandwidths and are used with the first
            condition = torch.zeros(1, dtype=torch.long, device=z_BDT.device)
        return self.head(self.backbone(z_BDT, condition))

    def forward(self, audio_BN: Tensor, quantize: bool = False, num_quantizers: int | None = None) -> Tensor:
        """The round trip, cut to the length of the input; quantised by the first codebooks or, by default, all."""
        z_BDT = self.encode(audio_BN)
        if quantize:
            z_BDT, _ = self.quantizer(z_BDT, num_quantizers)
        return self.decode(z_BDT)[:, : audio_BN.shape[-1]]

    def load_checkpoint_(self, state: Mapping[str, Tensor]) -> None:
        """Load a state dict with `strict=True`, without the parts that a codec does not need."""
        kept = {key: value for key, value in state.items() if key.startswith(PARTS) and not key.startswith(UNUSED)}
        self.load_state_dict(kept, strict=True)
