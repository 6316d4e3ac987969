"""What the source-filter codec is trained to do: spectra, pitch, voicing, and moves of pitch, level and tilt."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hooks.networks.harmonics import harmonic_source, running_phase
from hooks.networks.pitch_net import BINS, PER_SEMITONE, PITCH_HIGH, PITCH_LOW, read_pitch
from hooks.networks.source_filter import SourceFilter, mel_filters

UNITS = (6.0, 3.0)
"""One step along the taught directions: 6 dB of level, 3 dB per octave of tilt."""
LENGTHS = (2.0, 1.0)
"""How long such a step is in the latent."""
CHANGED = 0.35
"""The share of a batch whose target is the sound louder or softer, brighter or duller."""
SIZES = ((256, 32), (512, 64), (1024, 96), (2048, 128))


def magnitudes(x_BN: Tensor, window: Tensor, hop: int) -> Tensor:
    """STFT magnitudes [B, F, T], 1 for a sine of amplitude 1."""
    spectrum = torch.stft(x_BN, len(window), hop, window=window, return_complex=True)
    return torch.view_as_real(spectrum).square().sum(-1).add(1e-12).sqrt() * (2 / window.sum())


class SpectralDistance(nn.Module):
    """Log mel and log magnitude differences at four resolutions, and root magnitudes at the two longer, [B]."""

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        for n_fft, mels in SIZES:
            self.register_buffer(f"mel{n_fft}", mel_filters(n_fft, mels, sample_rate))
            self.register_buffer(f"window{n_fft}", torch.hann_window(n_fft))

    def forward(self, x_BN: Tensor, y_BN: Tensor) -> Tensor:
        mel_B, plain_B = x_BN.new_zeros(len(x_BN)), x_BN.new_zeros(len(x_BN))
        for n_fft, _ in SIZES:
            window, mel = getattr(self, f"window{n_fft}"), getattr(self, f"mel{n_fft}")
            x_BFT, y_BFT = magnitudes(x_BN, window, n_fft // 4), magnitudes(y_BN, window, n_fft // 4)
            x_BTM, y_BTM = (s.transpose(1, 2) @ mel + 1e-4 for s in (x_BFT, y_BFT))
            mel_B = mel_B + (x_BTM.log() - y_BTM.log()).abs().mean((1, 2))
            plain_B = plain_B + ((x_BFT + 1e-4).log() - (y_BFT + 1e-4).log()).abs().mean((1, 2))
            if n_fft >= 1024:
                root_x, root_y = x_BFT.sqrt(), y_BFT.sqrt()
                plain_B = plain_B + (root_x - root_y).abs().sum((1, 2)) / root_x.sum((1, 2)).clamp(min=1e-3)
        return mel_B / len(SIZES) + 0.375 * plain_B / len(SIZES)


class EnvelopeDistance(nn.Module):
    """What a move of pitch must leave, [B]: powers in 14 wide bands and of the whole, in frames of 43 and 85 ms."""

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        for n_fft in (1024, 2048):
            self.register_buffer(f"mel{n_fft}", mel_filters(n_fft, 14, sample_rate, corner=1600.0))
            self.register_buffer(f"window{n_fft}", torch.hann_window(n_fft))

    def forward(self, x_BN: Tensor, y_BN: Tensor) -> Tensor:
        total_B = x_BN.new_zeros(len(x_BN))
        for n_fft in (1024, 2048):
            window, mel = getattr(self, f"window{n_fft}"), getattr(self, f"mel{n_fft}")
            x_BFT, y_BFT = (magnitudes(s, window, n_fft // 2).square() for s in (x_BN, y_BN))
            x_BTM, y_BTM = (p.transpose(1, 2) @ mel + 1e-8 for p in (x_BFT, y_BFT))
            total_B = total_B + 0.5 * (x_BTM.log() - y_BTM.log()).abs().mean((1, 2))
            total_B = total_B + 0.5 * ((x_BFT.sum(1) + 1e-6).log() - (y_BFT.sum(1) + 1e-6).log()).abs().mean(1)
        return total_B / 2


class BandCorrelation(nn.Module):
    """1 - the correlation over time of third-octave envelopes in windows of 0.38 s, [B]: what STOI (Taal et al. 2011)
    is made of, without its clipping."""

    BANDS, FRAMES, N_FFT, HOP = 15, 30, 614, 307

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        centre = 150 * 2 ** (torch.arange(self.BANDS) / 3)
        frequency = torch.linspace(0, sample_rate / 2, self.N_FFT // 2 + 1)
        inside = (frequency >= centre[:, None] * 2 ** (-1 / 6)) & (frequency < centre[:, None] * 2 ** (1 / 6))
        self.bands: Tensor
        self.window: Tensor
        self.register_buffer("bands", inside.float().T)
        self.register_buffer("window", torch.hann_window(self.N_FFT))

    def forward(self, x_BN: Tensor, y_BN: Tensor) -> Tensor:
        envelopes = []
        for s in (x_BN, y_BN):
            power_BFT = magnitudes(s, self.window, self.HOP).square()
            envelope_BTK = (power_BFT.transpose(1, 2) @ self.bands + 1e-9).sqrt()
            windows = envelope_BTK.unfold(1, self.FRAMES, self.FRAMES // 3)  # [B, windows, bands, frames]
            windows = windows - windows.mean(3, keepdim=True)
            envelopes.append(windows)
        # windows that are silent in the target do not count
        weight = (envelopes[0].square().mean(3) > 1e-8).float()
        correlation = F.cosine_similarity(envelopes[0], envelopes[1], dim=3, eps=1e-5)
        return 1 - (correlation * weight).sum((1, 2)) / weight.sum((1, 2)).clamp(min=1)


def tilt(x_BN: Tensor, slope_B: Tensor, sample_rate: int) -> Tensor:
    """Spectra tilted by dB per octave, the RMS level kept."""
    spectrum = torch.fft.rfft(x_BN, 2 * x_BN.shape[1])
    frequency = torch.linspace(0, sample_rate / 2, spectrum.shape[1], device=x_BN.device)
    octaves = 0.5 * ((frequency.square() + 100.0**2) / 1000.0**2).log2()
    y_BN = torch.fft.irfft(spectrum * 10 ** (slope_B[:, None] * octaves / 20))[:, : x_BN.shape[1]]
    before, after = (s.square().mean(1, keepdim=True).sqrt() for s in (x_BN, y_BN))
    return y_BN * before / after.clamp(min=1e-7)


@dataclass(frozen=True)
class Weights:
    """What each term counts; these are the prototype's, with which the first weights were trained."""

    level: float = 0.3
    pitch: float = 0.5
    voicing: float = 0.3
    keep: float = 0.3
    scale: float = 0.1
    agree: float = 0.3
    rough: float = 0.003
    envelopes: float = 0.0


class Loss(nn.Module):
    """All terms for a batch; they draw at random what is changed, moved and disturbed."""

    def __init__(self, model: SourceFilter, weights: Weights | None = None) -> None:
        super().__init__()
        self.model, self.weights = model, weights or Weights()
        self.rate, self.hop = model.config.sample_rate, model.config.hop_length
        self.spectral, self.envelope = SpectralDistance(self.rate), EnvelopeDistance(self.rate)
        self.correlation = BandCorrelation(self.rate)

    def forward(self, x_BN: Tensor, midi_BT: Tensor, confidence_BT: Tensor, used: float) -> dict[str, Tensor]:
        """Terms by name, `total` among them, for waveforms with the pitch and its confidence in each frame; `used` is
        the share of the training that is over."""
        model, weights, device = self.model, self.weights, x_BN.device
        batch = len(x_BN)
        changed_B = torch.rand(batch, device=device) < CHANGED
        level_B = torch.empty(batch, device=device).uniform_(-12, 10)
        change_B2 = torch.stack([level_B, torch.empty(batch, device=device).uniform_(-4.5, 4.5)], 1)
        change_B2 = change_B2 * changed_B[:, None]
        y_BN = tilt(x_BN, change_B2[:, 1], self.rate) * 10 ** (change_B2[:, :1] / 20)
        y_BN = torch.where(changed_B[:, None], y_BN, x_BN)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            z_BDT, logits_BPT, clearness_BT = model.encoder(x_BN)
            target_BDT = model.encoder.channels(y_BN, clearness_BT)
        z_BDT, target_BDT, logits_BPT = z_BDT.float(), target_BDT.float()[:, 1:], logits_BPT.float()
        # in float32: z0 is a place on the pitch axis
        heard_BT = read_pitch(logits_BPT)[0]

        pitch, weight_BT = pitch_loss(logits_BPT, midi_BT, confidence_BT)
        off_BT = (heard_BT - midi_BT).abs()
        gross = ((off_BT > 0.5).float() * weight_BT).sum() / weight_BT.sum().clamp(min=1)
        voicing = F.binary_cross_entropy_with_logits(2 * z_BDT[:, 1], ((confidence_BT - 0.25) / 0.4).clamp(0, 1))

        free_BDT = z_BDT[:, 2:]
        mean_D, spread_D = free_BDT.mean((0, 2)), free_BDT.std((0, 2))
        scale = mean_D.square().mean() + (spread_D - 1).square().mean()
        directions = F.normalize(model.directions, dim=1) * torch.tensor(LENGTHS, device=device)[:, None]
        moved_BDT = free_BDT + ((change_B2 / torch.tensor(UNITS, device=device)) @ directions)[:, :, None]
        agree = (target_BDT - moved_BDT)[changed_B].square().mean() if changed_B.any() else free_BDT.new_zeros(())

        into_BDT = torch.cat([z_BDT[:, 1:2], moved_BDT], 1)
        # noise makes the decoder robust to what an SAE leaves out
        into_BDT = torch.cat([z_BDT[:, :1], into_BDT + 0.05 * torch.randn_like(into_BDT)], 1)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            harmonic_BTK, noise_BTK = model.decoder.filters(into_BDT)
        # the label where the network is wrong and the label sure
        true_BT = torch.where((weight_BT > 0.3) & (off_BT.detach() > 0.4), midi_BT, heard_BT.detach())
        output_BN = self.synthesise(true_BT, harmonic_BTK, noise_BTK)
        spectral_B, level_B = self.spectral(y_BN, output_BN), self.envelope(y_BN, output_BN)

        shift_B1 = torch.empty(batch, 1, device=device).uniform_(-12, 12)
        half = slice(0, batch, 2)
        other_BN = self.synthesise((true_BT + shift_B1)[half], harmonic_BTK[half], noise_BTK[half])
        keep_B = self.envelope(output_BN[half].detach(), other_BN)
        rough = (harmonic_BTK[..., 2:] - 2 * harmonic_BTK[..., 1:-1] + harmonic_BTK[..., :-2]).square().mean()
        total = (
            spectral_B.mean()
            + weights.level * level_B.mean()
            + weights.pitch * pitch
            + weights.voicing * voicing
            + weights.keep * keep_B.mean()
            + weights.scale * scale
            + weights.agree * min(1.0, used / 0.2) * agree
            + weights.rough * rough
        )
        terms = {
            "spectral": spectral_B[~changed_B].mean(),
            "level": level_B.mean(),
            "pitch": pitch,
            "gross": gross,
            "voicing": voicing,
            "keep": keep_B.mean(),
            "scale": scale,
            "agree": agree,
            "rough": rough,
        }
        if weights.envelopes:
            terms["envelopes"] = self.correlation(y_BN, output_BN).mean()
            total = total + weights.envelopes * terms["envelopes"]
        return {"total": total, **terms}

    def synthesise(self, midi_BT: Tensor, harmonic_BTK: Tensor, noise_BTK: Tensor) -> Tensor:
        cycles_BN, f0_BN = running_phase(midi_BT, self.hop, self.rate)
        source_BN = harmonic_source(cycles_BN, f0_BN, self.rate)
        white_BN = torch.randn(source_BN.shape, device=midi_BT.device)
        return self.model.decoder.synthesise(source_BN, white_BN, harmonic_BTK.float(), noise_BTK.float())


def pitch_loss(logits_BPT: Tensor, midi_BT: Tensor, confidence_BT: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy with a bell of 0.27 semitones around the label, and how much each frame counts in it [B, T]."""
    inside_BT = ((midi_BT > PITCH_LOW) & (midi_BT < PITCH_HIGH)).float()
    weight_BT = ((confidence_BT - 0.4) / 0.4).clamp(0, 1) * inside_BT
    place_BT = ((midi_BT - PITCH_LOW) * PER_SEMITONE).clamp(0, BINS - 1)
    bins = torch.arange(BINS, device=logits_BPT.device)
    bell_BPT = torch.exp(-0.5 * ((bins[None, :, None] - place_BT[:, None]) / 0.8) ** 2)
    bell_BPT = bell_BPT / bell_BPT.sum(1, keepdim=True).clamp(min=1e-6)
    entropy_BT = -(bell_BPT * logits_BPT.log_softmax(1)).sum(1)
    return (entropy_BT * weight_BT).sum() / weight_BT.sum().clamp(min=1), weight_BT
