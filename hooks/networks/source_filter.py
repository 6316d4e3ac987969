"""A source-filter codec whose pitch is one coordinate of its latent.

The latent z [B, 64, T] holds log f0 in z[:, 0] ((MIDI - 60) / 6), voicing in z[:, 1] (probability sigmoid(2 z1)) and
free channels. Its decoder never sees z0: from the others it makes log amplitudes on `bands` bands, two sets a frame, of
a minimum-phase filter for a harmonic source of pitch z0 and of a zero-phase filter for noise. So formants stay where
they are when pitch moves. Phases of the input are not kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from hooks.networks.harmonics import (
    Phase,
    filtered,
    framed,
    harmonic_source,
    minimum_phase,
    noise_at,
    running_phase,
)
from hooks.networks.pitch_net import PitchNet, read_pitch
from hooks.networks.vocos import ConvNeXtBlock

MIDI_CENTRE, MIDI_STEP = 60.0, 6.0
"""z0 is 0 at this note, and 1 so many semitones above it."""
SETS = 2
"""Sets of filters, and of short spectra, a frame."""
MELS = ((512, 64), (1536, 96))
"""Window lengths and numbers of mel bands of the encoder's input; the short one is taken `SETS` times a frame."""
N_FFT = 1024
EARLY = 256
"""Samples that the noise filter's impulse response may begin before its time."""
LOWEST, HIGHEST = -14.0, 5.0
"""Range of the filters' log amplitudes."""


@dataclass(frozen=True)
class SourceFilterConfig:
    """Shapes of the network; the defaults are those of `starter:codec`."""

    sample_rate: int = 24_000
    hop_length: int = 320
    dimension: int = 64
    encoder_width: int = 192
    encoder_layers: int = 4
    decoder_width: int = 256
    decoder_layers: int = 6
    pitch_channels: int = 16
    bands: int = 56

    def __post_init__(self) -> None:
        if any(value < 1 for value in vars(self).values()):
            raise ValueError("all sizes have to be at least 1")
        if self.hop_length % SETS or self.hop_length > N_FFT // 2:
            raise ValueError(f"hop_length {self.hop_length} is odd or above {N_FFT // 2}")
        if self.dimension < 3:
            raise ValueError(f"dimension {self.dimension} leaves no free channel beside pitch and voicing")

    @property
    def frame_rate(self) -> float:
        return self.sample_rate / self.hop_length

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def spaced(start: float, end: float, count: int) -> Tensor:
    """`torch.linspace` on the device of the context, also where transformers was the first to use such a context: it
    puts a function of its own in linspace's place meanwhile, and torch then knows the original no more."""
    return torch.linspace(start, end, count, device=torch.empty(0).device)


def mel_filters(n_fft: int, n_mels: int, sample_rate: int, corner: float = 700.0) -> Tensor:
    """Triangular filters that sum to 1 each, [n_fft / 2 + 1, n_mels], on the scale log(1 + f / corner)."""
    frequency = spaced(0, sample_rate / 2, n_fft // 2 + 1)
    top = math.log(1 + sample_rate / 2 / corner)
    edges = corner * (torch.exp(spaced(0, top, n_mels + 2)) - 1)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    weights_MF = torch.minimum((frequency - low) / (middle - low), (high - frequency) / (high - middle)).clamp(min=0)
    # a filter narrower than a bin takes the nearest bin
    nearest_MF = torch.zeros_like(weights_MF)
    nearest_MF[torch.arange(n_mels), (edges[1:-1] / (sample_rate / 2) * (n_fft // 2)).round().long()] = 1
    weights_MF = torch.where(weights_MF.sum(1, keepdim=True) > 0.5, weights_MF, nearest_MF)
    return (weights_MF / weights_MF.sum(1, keepdim=True)).T.contiguous()


def band_matrix(bands: int, bins: int, sample_rate: int, corner: float = 2000.0) -> Tensor:
    """Linear interpolation from values on bands, evenly spaced in log(1 + f / corner), to FFT bins, [bands, bins]."""
    frequency = spaced(0, sample_rate / 2, bins)
    place = torch.log(1 + frequency / corner) / math.log(1 + sample_rate / 2 / corner) * (bands - 1)
    return (1 - (place[None] - torch.arange(bands)[:, None]).abs()).clamp(min=0)


class ConvNeXt(nn.Module):
    """[B, C, T] to [B, c_out, T] by ConvNeXt blocks at the frame rate."""

    def __init__(self, c_in: int, width: int, layers: int, c_out: int) -> None:
        super().__init__()
        self.embed = nn.Conv1d(c_in, width, 3, padding=1)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.blocks = nn.ModuleList(ConvNeXtBlock(width, 3 * width, 1 / layers, None) for _ in range(layers))
        self.last = nn.LayerNorm(width, eps=1e-6)
        self.out = nn.Linear(width, c_out)
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, x_BCT: Tensor) -> Tensor:
        h_BCT = self.norm(self.embed(x_BCT.to(self.embed.weight.dtype)).transpose(1, 2)).transpose(1, 2)
        for block in self.blocks:
            h_BCT = block(h_BCT, None)
        return self.out(self.last(h_BCT.transpose(1, 2))).transpose(1, 2)


class Encoder(nn.Module):
    def __init__(self, config: SourceFilterConfig) -> None:
        super().__init__()
        self.hop = config.hop_length
        self.pitch = PitchNet(config.sample_rate, config.hop_length, config.pitch_channels)
        for length, mels in MELS:
            self.register_buffer(f"mel{length}", mel_filters(length, mels, config.sample_rate), persistent=False)
            self.register_buffer(f"window{length}", torch.hann_window(length), persistent=False)
        inputs = SETS * MELS[0][1] + MELS[1][1] + 1
        self.net = ConvNeXt(inputs, config.encoder_width, config.encoder_layers, config.dimension - 1)

    @torch.no_grad()
    def spectra(self, x_BN: Tensor, frames: int) -> Tensor:
        """Log mel spectra [B, bands, T] at both resolutions, of about mean 0 and deviation 1."""
        spectra = []
        for length, _ in MELS:
            sets = SETS if length == MELS[0][0] else 1
            window, mel = getattr(self, f"window{length}").float(), getattr(self, f"mel{length}").float()
            windows = framed(x_BN, length, self.hop // sets, frames * sets) * window
            power = torch.fft.rfft(windows).abs().square() @ mel
            spectra.append((0.5 * (power * (4 / length) ** 2 + 1e-9).log()).reshape(len(x_BN), frames, -1))
        return (torch.cat(spectra, 2).transpose(1, 2) + 6) / 2.5

    def channels(self, x_BN: Tensor, clearness_BT: Tensor) -> Tensor:
        """z[:, 1:], of a sound and the probability of its best pitch."""
        frames = clearness_BT.shape[1]
        with torch.autocast(x_BN.device.type, enabled=False):
            spectra = self.spectra(x_BN.float(), frames)
        return self.net(torch.cat([spectra, clearness_BT[:, None].float()], 1))

    def forward(self, x_BN: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(latent [B, D, T], pitch logits [B, P, T], probability of the best pitch [B, T])."""
        frames = -(-x_BN.shape[1] // self.hop)
        logits_BPT = self.pitch(x_BN, frames)
        midi_BT, clearness_BT = read_pitch(logits_BPT)
        free = self.channels(x_BN, clearness_BT.detach())
        z0_B1T = ((midi_BT - MIDI_CENTRE) / MIDI_STEP)[:, None]
        # float32 also of a network in half precision, in which z0 would be off by up to 20 cents
        return torch.cat([z0_B1T, free.float()], 1), logits_BPT, clearness_BT.detach()


class Decoder(nn.Module):
    bands: Tensor
    window: Tensor

    def __init__(self, config: SourceFilterConfig) -> None:
        super().__init__()
        self.config = config
        self.net = ConvNeXt(config.dimension - 1, config.decoder_width, config.decoder_layers, SETS * 2 * config.bands)
        bands = band_matrix(config.bands, N_FFT // 2 + 1, config.sample_rate)
        self.register_buffer("bands", bands, persistent=False)
        self.register_buffer("window", torch.hann_window(2 * config.hop_length // SETS), persistent=False)
        nn.init.constant_(self.net.out.bias, -5.0)

    def filters(self, z_BDT: Tensor) -> tuple[Tensor, Tensor]:
        """Log amplitudes [B, T * SETS, bands] of the harmonic and of the noise filter; z0 has no part in them."""
        batch, _, frames = z_BDT.shape
        h_BTC = self.net(z_BDT[:, 1:]).float().transpose(1, 2).reshape(batch, frames * SETS, -1)
        harmonic_BTK, noise_BTK = h_BTC.clamp(LOWEST, HIGHEST).chunk(2, dim=2)
        return harmonic_BTK, noise_BTK

    def synthesise(self, source_BN: Tensor, white_BN: Tensor, harmonic_BTK: Tensor, noise_BTK: Tensor) -> Tensor:
        """[B, T * hop]: both sources through their filters."""
        hop, bands, window = self.config.hop_length // SETS, self.bands.float(), self.window.float()
        voiced = minimum_phase(harmonic_BTK @ bands, N_FFT)
        breath = (noise_BTK @ bands).exp().to(torch.complex64)
        return filtered(source_BN, voiced, window, hop, N_FFT) + filtered(white_BN, breath, window, hop, N_FFT, EARLY)


class SourceFilter(nn.Module):
    """Mono waveform [B, samples] to latent [B, D, T] at `config.frame_rate` Hz and back.

    `latent` is passed on the way into the decoder. `directions` [2, D - 2] are the moves of the free channels that the
    training taught the decoder: 6 dB of level (length 2) and 3 dB per octave of tilt (length 1), normalised.
    """

    def __init__(self, config: SourceFilterConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SourceFilterConfig()
        self.encoder, self.latent, self.decoder = Encoder(config), nn.Identity(), Decoder(config)
        self.directions = nn.Parameter(0.1 * torch.randn(2, config.dimension - 2))

    def encode(self, x_BN: Tensor) -> Tensor:
        """Latent [B, D, ceil(samples / hop)], float32."""
        return self.encoder(x_BN)[0]

    def decode(self, z_BDT: Tensor, start: int = 0, seed: int = 0, phases: list[Phase] | None = None) -> Tensor:
        """Waveform [B, T * hop] of a latent whose first sample is sample `start` of its recording.

        Noise depends on that place and the `seed` alone. With `phases` the harmonics go on from those of the chunk
        before (its only entry, if there is one), and this chunk's take its place.
        """
        z_BDT = self.latent(z_BDT)
        hop, rate = self.config.hop_length, self.config.sample_rate
        harmonic_BTK, noise_BTK = self.decoder.filters(z_BDT)
        cycles_BN, f0_BN = running_phase(z_BDT[:, 0].float() * MIDI_STEP + MIDI_CENTRE, hop, rate)
        if phases is not None:
            cycles_BN = joined(cycles_BN, start, phases)
        source_BN = harmonic_source(cycles_BN, f0_BN, rate).to(harmonic_BTK.device)
        white_BN = noise_at(start, source_BN.shape[1], seed).to(harmonic_BTK.device).expand_as(source_BN)
        return self.decoder.synthesise(source_BN, white_BN, harmonic_BTK, noise_BTK).to(self.directions.dtype)

    def forward(self, x_BN: Tensor) -> Tensor:
        """The round trip, cut to the length of the input."""
        return self.decode(self.encode(x_BN))[:, : x_BN.shape[1]]

    def load_weights_(self, state: Mapping[str, Tensor]) -> None:
        self.load_state_dict({name: value.float() for name, value in state.items()}, strict=True)


def joined(cycles_BN: Tensor, start: int, phases: list[Phase]) -> Tensor:
    """The phases moved so that they agree with the last chunk's in the middle of what both have."""
    if phases:
        last = phases.pop()
        middle = (start + last.start + last.cycles_BN.shape[1]) // 2
        if start <= middle < start + cycles_BN.shape[1]:
            offset_B = last.offset_at(middle, cycles_BN[:, middle - start])
            cycles_BN = cycles_BN if offset_B is None else cycles_BN + offset_B[:, None]
    phases.append(Phase(start, cycles_BN))
    return cycles_BN
