"""Vocos decoder (arXiv 2306.00814): ConvNeXt blocks at the frame rate and an inverse STFT head.

WavTokenizer (arXiv 2408.16532, section 3.3) puts `pos_net`, residual blocks around one self-attention, before it and
conditions the norms on a bandwidth. Both are options here: without them it is the plain, purely local Vocos.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hooks.precision import on_meta


def group_norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, width, eps=1e-6)


class ResnetBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = group_norm(width), group_norm(width)
        self.conv1 = nn.Conv1d(width, width, 3, padding=1)
        self.conv2 = nn.Conv1d(width, width, 3, padding=1)

    def forward(self, x_BCT: Tensor) -> Tensor:
        h_BCT = self.conv1(F.silu(self.norm1(x_BCT)))
        return x_BCT + self.conv2(F.silu(self.norm2(h_BCT)))


class AttentionBlock(nn.Module):
    """Single-head self-attention over all frames, without positions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = group_norm(width)
        self.q, self.k, self.v, self.proj_out = (nn.Conv1d(width, width, 1) for _ in range(4))

    def forward(self, x_BCT: Tensor) -> Tensor:
        h_BCT = self.norm(x_BCT)
        q_BTC, k_BTC, v_BTC = (layer(h_BCT).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed_BTC = F.scaled_dot_product_attention(q_BTC, k_BTC, v_BTC)
        return x_BCT + self.proj_out(mixed_BTC.transpose(1, 2))


class AdaLayerNorm(nn.Module):
    """LayerNorm over the width with scale and shift looked up by a condition id."""

    def __init__(self, num_conditions: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.scale = nn.Embedding(num_conditions, width)
        self.shift = nn.Embedding(num_conditions, width)
        nn.init.ones_(self.scale.weight)
        nn.init.zeros_(self.shift.weight)

    def forward(self, x_BTC: Tensor, condition: Tensor) -> Tensor:
        normed_BTC = F.layer_norm(x_BTC, (self.width,), eps=1e-6)
        return normed_BTC * self.scale(condition) + self.shift(condition)


def frame_norm(width: int, num_conditions: int | None) -> nn.Module:
    return AdaLayerNorm(num_conditions, width) if num_conditions else nn.LayerNorm(width, eps=1e-6)


class ConvNeXtBlock(nn.Module):
    def __init__(self, width: int, hidden: int, layer_scale: float, num_conditions: int | None) -> None:
        super().__init__()
        self.dwconv = nn.Conv1d(width, width, 7, padding=3, groups=width)
        self.norm = frame_norm(width, num_conditions)
        self.pwconv1 = nn.Linear(width, hidden)
        self.pwconv2 = nn.Linear(hidden, width)
        self.gamma = nn.Parameter(torch.full((width,), layer_scale))

    def forward(self, x_BCT: Tensor, condition: Tensor | None) -> Tensor:
        h_BTC = self.dwconv(x_BCT).transpose(1, 2)
        h_BTC = self.norm(h_BTC) if condition is None else self.norm(h_BTC, condition)
        h_BTC = self.gamma * self.pwconv2(F.gelu(self.pwconv1(h_BTC)))
        return x_BCT + h_BTC.transpose(1, 2)


class VocosBackbone(nn.Module):
    """Latent [B, input_channels, T] to hidden frames [B, T, width]."""

    def __init__(
        self,
        input_channels: int,
        width: int,
        hidden: int,
        num_layers: int,
        num_conditions: int | None = None,
        attention: bool = True,
    ) -> None:
        super().__init__()
        self.embed = nn.Conv1d(input_channels, width, 7, padding=3)
        self.norm = frame_norm(width, num_conditions)
        self.convnext = nn.ModuleList(
            ConvNeXtBlock(width, hidden, 1 / num_layers, num_conditions) for _ in range(num_layers)
        )
        self.final_layer_norm = nn.LayerNorm(width, eps=1e-6)
        self.num_conditions = num_conditions
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Linear):
                if not on_meta():
                    nn.init.trunc_normal_(module.weight, std=0.02)
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        if attention:
            self.pos_net = nn.Sequential(
                ResnetBlock(width),
                ResnetBlock(width),
                AttentionBlock(width),
                ResnetBlock(width),
                ResnetBlock(width),
                group_norm(width),
            )
        self.attention = attention

    def forward(self, z_BCT: Tensor, bandwidth_id: Tensor | None = None) -> Tensor:
        """Raises ValueError if the norms are conditioned and `bandwidth_id` (long, [1] or [B, 1]) is absent."""
        if self.num_conditions and bandwidth_id is None:
            raise ValueError("this Vocos backbone is conditioned: pass bandwidth_id")
        condition = bandwidth_id if self.num_conditions else None
        x_BCT = self.embed(z_BCT)
        if self.attention:
            x_BCT = self.pos_net(x_BCT)
        x_BTC = x_BCT.transpose(1, 2)
        x_BTC = self.norm(x_BTC) if condition is None else self.norm(x_BTC, condition)
        x_BCT = x_BTC.transpose(1, 2)
        for block in self.convnext:
            x_BCT = block(x_BCT, condition)
        return self.final_layer_norm(x_BCT.transpose(1, 2))


class InverseSTFT(nn.Module):
    """Frames of a complex spectrum [B, n_fft / 2 + 1, T] to T * hop samples ("same" padding, Hann window)."""

    window: Tensor

    def __init__(self, n_fft: int, hop_length: int) -> None:
        super().__init__()
        self.n_fft, self.hop_length = n_fft, hop_length
        self.register_buffer("window", torch.empty(n_fft) if on_meta() else torch.hann_window(n_fft))

    def forward(self, spectrum_BFT: Tensor) -> Tensor:
        frames_BNT = torch.fft.irfft(spectrum_BFT, self.n_fft, dim=1) * self.window[None, :, None]
        num_frames = frames_BNT.shape[-1]
        size = (num_frames - 1) * self.hop_length + self.n_fft
        weight_1NT = self.window.square()[None, :, None].expand(1, -1, num_frames)
        summed, weight = (
            F.fold(x, (1, size), (1, self.n_fft), stride=(1, self.hop_length))[:, 0, 0]
            for x in (frames_BNT, weight_1NT)
        )
        edge = (self.n_fft - self.hop_length) // 2
        return summed[:, edge : size - edge] / weight[:, edge : size - edge]


class ISTFTHead(nn.Module):
    """Hidden frames [B, T, width] to a waveform [B, T * hop_length]: log-magnitude and phase, then inverse STFT.

    Vocos reads the phase off one output per bin. With `phase_pair` it is the angle of two (APNet, arXiv 2305.07952): an
    angle is far from linear in what is known about it, its sine and cosine are not, so it is learned sooner.
    """

    def __init__(self, width: int, n_fft: int, hop_length: int, phase_pair: bool = False) -> None:
        super().__init__()
        self.bins = n_fft // 2 + 1
        self.out = nn.Linear(width, self.bins * (3 if phase_pair else 2))
        self.istft = InverseSTFT(n_fft, hop_length)

    def forward(self, x_BTC: Tensor) -> Tensor:
        return self.synthesise(self.out(x_BTC))

    def synthesise(self, spectrum_BTF: Tensor) -> Tensor:
        """Waveform of what `out` gives: log-magnitudes, then phases or pairs whose angle is the phase."""
        log_magnitude_BFT, *phase = spectrum_BTF.transpose(1, 2).float().split(self.bins, dim=1)
        # the bound is Vocos's own guard against a runaway exponent
        magnitude_BFT = log_magnitude_BFT.exp().clamp(max=1e2)
        if len(phase) == 1:
            cosine_BFT, sine_BFT = phase[0].cos(), phase[0].sin()
        else:
            length_BFT = (phase[0].square() + phase[1].square() + 1e-6).sqrt()
            cosine_BFT, sine_BFT = (part / length_BFT for part in phase)
        return self.istft(torch.complex(magnitude_BFT * cosine_BFT, magnitude_BFT * sine_BFT))
