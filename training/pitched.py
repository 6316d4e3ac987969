"""Training sound with its pitch: recordings labelled by CREPE once, and tones and noise made as they are needed.

Everything is mono at 24 kHz with a pitch (MIDI notes) and a confidence (0 to 1) for every frame of a codec.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from hooks.files import whole_file
from steer.frame_labels import crepe, loudness_db
from training.sounds import read_mono, read_rows, speak

SHARES = {"notes": 3.0, "singing": 2.0, "esc10": 1.5, "digits": 1.2, "orders": 2.0, "keywords": 1.3, "ljspeech": 1.5,
          "speech_misc": 1.2, "noise_rir": 0.3, "espeak": 0.8}  # fmt: skip
"""How often a collection is drawn; `espeak` are sentences spoken here."""
UNPITCHED = ("esc10", "noise_rir")
"""Collections where CREPE's confidence counts for less."""
SILENT_DB, RANGE_DB = -62.0, 45.0
NOTE_RANGE = 2.5
"""Semitones around the note that a manifest names in which its pitch is looked for."""
ESC_S = 3.0
"""Of an environmental sound the loudest part of this length is taken."""


@dataclass
class Recordings:
    """Waveforms one behind the other, float16 [N] at whole frames, with (pitch, confidence) [T, 2] of every frame."""

    wave_N: Tensor
    labels_T2: Tensor
    groups: dict[str, list[tuple[int, int]]]
    """First frame and number of frames of each clip, by collection."""
    sample_rate: int
    hop: int

    def to(self, device: str | torch.device) -> Recordings:
        wave, labels = self.wave_N.to(device), self.labels_T2.to(device)
        return Recordings(wave, labels, self.groups, self.sample_rate, self.hop)


def waveforms(audio: Path, sample_rate: int, sentences: int, seed: int) -> list[tuple[str, np.ndarray, float | None]]:
    """(collection, waveform, note) of every training clip and of sentences by espeak-ng, in voices drawn at random."""
    found: list[tuple[str, np.ndarray, float | None]] = []
    texts = []
    for group, path, row in read_rows(audio, "train"):
        wave = read_mono(path, sample_rate)
        if group == "esc10":
            wave = loudest(wave, int(ESC_S * sample_rate))
        if np.abs(wave).max() > 1e-3:
            found.append((group, wave, float(row["pitch_midi"]) if row.get("pitch_midi") else None))
        if len(row["text"].split()) > 2:
            texts.append(row["text"])
    if not found:
        raise FileNotFoundError(f"no */manifest.csv with clips of split 'train' below {audio}")
    if texts and sentences and shutil.which("espeak-ng"):
        rng = np.random.default_rng(seed)
        spoken = [texts[index] for index in rng.integers(len(texts), size=sentences)]
        found += [("espeak", wave, None) for wave in speak(spoken, sample_rate, rng)]
    return found


def loudest(wave: np.ndarray, count: int) -> np.ndarray:
    if len(wave) <= count:
        return wave
    power = np.convolve(wave.astype(np.float64) ** 2, np.ones(count // 8), "valid")
    start = int(np.clip(power.argmax() - count // 4, 0, len(wave) - count))
    return wave[start : start + count]


def pitch_labels(wave: np.ndarray, sample_rate: int, hop: int, frames: int, group: str, note: float | None) -> Tensor:
    """(MIDI notes, confidence) [frames, 2] by CREPE; around the note, where the manifest names one."""
    low, high = (note - NOTE_RANGE, note + NOTE_RANGE) if note else (28.0, 95.0)
    waveform, rate = torch.from_numpy(wave)[None], sample_rate / hop
    midi_T, confidence_T = crepe(waveform, sample_rate, rate, frames, low, high)
    level_T = loudness_db(waveform, sample_rate, rate, frames, window_s=0.064)
    quiet_T = (level_T < SILENT_DB) | (level_T < level_T.max() - RANGE_DB)
    confidence_T = confidence_T.masked_fill(quiet_T, 0.0) * (0.6 if group in UNPITCHED else 1.0)
    return torch.stack([midi_T, confidence_T], 1)


def recordings(audio: Path, cache: Path, sample_rate: int, hop: int, sentences: int = 250, seed: int = 0) -> Recordings:
    """All training clips with their labels, kept in a file of `cache`: CREPE takes minutes."""
    path = cache / f"pitched-{sample_rate}-{hop}-{sentences}-{seed}.safetensors"
    if not path.exists():
        waves, labels, about, first = [], [], [], 0
        for group, wave, note in waveforms(audio, sample_rate, sentences, seed):
            frames = -(-len(wave) // hop)
            labels.append(pitch_labels(wave, sample_rate, hop, frames, group, note))
            waves.append(torch.from_numpy(np.pad(wave, (0, frames * hop - len(wave)))).half())
            about.append(f"{group} {first} {frames}")
            first += frames
        cache.mkdir(parents=True, exist_ok=True)
        tensors = {"wave": torch.cat(waves), "labels": torch.cat(labels)}
        with whole_file(path) as partial:
            save_file(tensors, partial, {"clips": "\n".join(about)})
    with safe_open(str(path), "pt") as file:
        groups: dict[str, list[tuple[int, int]]] = {}
        for line in file.metadata()["clips"].splitlines():
            group, first_frame, frames = line.split()
            groups.setdefault(group, []).append((int(first_frame), int(frames)))
        return Recordings(file.get_tensor("wave"), file.get_tensor("labels"), groups, sample_rate, hop)


class Batches:
    """Random segments [B, frames * hop] with their labels: recordings, half of them resampled by up to 7 semitones
    (pitch and formants together, by a known amount), tones and chords, and noise."""

    PARTS = 4
    MARGIN = 480

    def __init__(self, data: Recordings, size: int, frames: int, seed: int) -> None:
        self.data, self.frames, self.count = data, frames, frames * data.hop
        self.device = data.wave_N.device
        self.names = [name for name in SHARES if name in data.groups]
        shares = np.array([SHARES[name] for name in self.names])
        self.shares = shares / shares.sum()
        self.tones, self.noises = max(1, size // 4), max(1, size // 16)
        self.recorded = max(1, (size - self.tones - self.noises) // self.PARTS) * self.PARTS
        self.rng = np.random.default_rng(seed)

    def draw(self) -> tuple[Tensor, Tensor, Tensor]:
        """(waveforms [B, N], pitch [B, T], confidence [B, T]), at levels as varied as recordings are."""
        parts = [self.record(), self.tone(self.tones), self.noise(self.noises)]
        x_BN, midi_BT, confidence_BT = (torch.cat(part) for part in zip(*parts, strict=True))
        gain = 10 ** (torch.empty(len(x_BN), 1, device=self.device).uniform_(-14, 8) / 20)
        gain = torch.minimum(gain, 0.98 / x_BN.abs().amax(1, keepdim=True).clamp(min=1e-3))
        return x_BN * gain, midi_BT, confidence_BT

    def segments(self, count: int, length: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """[count, length] from random clips, zeros behind short ones; first frame in the clip, and the clip's place."""
        hop = self.data.hop
        clips = []
        for name in self.rng.choice(self.names, size=count, p=self.shares):
            clips.append(self.data.groups[name][self.rng.integers(len(self.data.groups[name]))])
        at, frames = torch.tensor(clips).T
        spare = np.maximum(frames.numpy() * hop - length, 0)
        start = (self.rng.uniform(size=count) * (spare * 1.2 + 1) - 0.1 * spare).astype(int)
        start = torch.from_numpy(np.clip(start, 0, spare) // hop)
        place = start[:, None] * hop + torch.arange(length)
        inside = place < frames[:, None] * hop
        place = at[:, None] * hop + torch.minimum(place, frames[:, None] * hop - 1)
        return self.data.wave_N[place.to(self.device)].float() * inside.to(self.device), start, at, frames

    def record(self) -> tuple[Tensor, Tensor, Tensor]:
        waves, midis, confidences = [], [], []
        for part in range(self.PARTS):
            moved = 0.0 if part % 2 == 0 else float(self.rng.uniform(-7, 7))
            ratio, margin = 2 ** (moved / 12), self.MARGIN if moved else 0
            length_out = self.count + 2 * margin
            length = round(length_out * ratio)
            x_BN, start, at, frames = self.segments(self.recorded // self.PARTS, length + length % 2)
            if moved:
                x_BN = resampled(x_BN, length_out)[:, margin : margin + self.count]
            centre = start[:, None] + (margin / self.data.hop + torch.arange(self.frames) + 0.5) * ratio - 0.5
            frame = centre.round().long().clamp(min=0)
            there = (frame < frames[:, None]).to(self.device)
            place = at[:, None] + torch.minimum(frame, frames[:, None] - 1)
            midi_BT, confidence_BT = self.data.labels_T2[place.to(self.device)].unbind(2)
            waves.append(x_BN)
            midis.append(midi_BT + moved)
            confidences.append(confidence_BT * there)
        return torch.cat(waves), torch.cat(midis), torch.cat(confidences)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, device=self.device)

    def chance(self, values: Sequence[int], count: int) -> Tensor:
        return torch.tensor(self.rng.choice(values, size=count), device=self.device)[:, None]

    def gains(self, frequency: Tensor, count: int) -> Tensor:
        """A random smooth spectral envelope at frequencies [count or 1, F] in Hz: a tilt and up to three resonances."""
        slope, corner = -2.2 + 1.9 * self.uniform(count, 1), 100 + 700 * self.uniform(count, 1)
        centre = (300 * 20 ** self.uniform(count, 3, 1)).log()
        width = 0.05 + 0.35 * self.uniform(count, 3, 1)
        height = 6 * self.uniform(count, 3, 1) * (self.uniform(count, 3, 1) < 0.6)
        peaks = 1 + height * torch.exp(-((frequency.log()[:, None] - centre) ** 2) / (2 * width**2))
        return (1 + frequency / corner) ** slope * peaks.prod(1)

    def levels(self, count: int, nodes: int, range_db: float) -> Tensor:
        """A level that wanders over a range, as gains [count, N]."""
        db = -range_db * self.uniform(count, 1, nodes)
        return 10 ** (F.interpolate(db, self.count, mode="linear", align_corners=True)[:, 0] / 20)

    @torch.no_grad()
    def tone(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Harmonic tones and chords, plucked, gliding or with vibrato; exact pitch, and of chords no confidence."""
        rate, hop = self.data.sample_rate, self.data.hop
        seconds = self.count / rate
        time_N = torch.arange(self.count, device=self.device)[None] / rate
        time_T = ((torch.arange(self.frames, device=self.device) + 0.5) * hop / rate)[None]
        voices = self.chance([1, 1, 1, 2, 3, 4], count)
        plucked = self.uniform(count, 1) < 0.4
        # chords of any notes, and such as people play: whole semitones above the lowest
        root, played = 33 + 55 * self.uniform(count, 1), self.uniform(count, 1) < 0.6
        x_BN = torch.zeros(count, self.count, device=self.device)
        midi_BT = torch.zeros(count, self.frames, device=self.device)
        for voice in range(4):
            base = torch.where(
                played, root + self.chance(range(20), count) * (voice > 0), 33 + 55 * self.uniform(count, 1)
            )
            bent = ~(played & (voices > 1)) & ~plucked
            glide = bent * (self.uniform(count, 1) < 0.35) * (self.uniform(count, 1) * 14 - 7)
            depth = bent * (self.uniform(count, 1) < 0.5) * 0.4 * self.uniform(count, 1)
            speed, start = 4 + 3 * self.uniform(count, 1), 2 * math.pi * self.uniform(count, 1)

            def curve(t: Tensor, base=base, glide=glide, depth=depth, speed=speed, start=start) -> Tensor:  # type: ignore[no-untyped-def]
                return base + glide * (t / seconds - 0.5) + depth * (2 * math.pi * speed * t + start).sin()

            if voice == 0:
                midi_BT = curve(time_T)
            f0_BN = 440 * 2 ** ((curve(time_N) - 69) / 12)
            cycles_BN = (torch.cumsum(f0_BN.double() / rate, 1) % 1).float()
            number = torch.arange(1, 49, device=self.device)[None]
            gain = self.gains(number * f0_BN.mean(1, keepdim=True), count) * (
                number <= self.chance(range(1, 48), count)
            )
            gain = gain * ((number - 1) % self.chance([1, 1, 1, 2], count) == 0)
            gain = gain * (number * f0_BN.amax(1, keepdim=True) < 0.48 * rate) * (voice < voices)
            gain = gain * 10 ** (-0.5 * self.uniform(count, 1))
            phase = 2 * math.pi * self.uniform(count, 48)
            # a plucked note begins before the segment, in chords also in it; its high partials fade first
            since_BN = time_N + 0.8 * self.uniform(count, 1) - 0.4 * (voices > 1)
            decay_B1 = plucked / (0.3 * 7 ** self.uniform(count, 1))
            attack_BN = torch.where(plucked, (since_BN / 0.004).clamp(0, 1), 1.0)
            fading_BN = decay_B1 * since_BN.clamp(min=0)
            for some in torch.arange(48, device=self.device).split(16):
                angle = 2 * math.pi * number[:, some, None] * cycles_BN[:, None] + phase[:, some, None]
                faded = torch.exp(-number[:, some, None].sqrt() * fading_BN[:, None])
                x_BN += attack_BN * (gain[:, some, None] * faded * angle.sin()).sum(1)
        x_BN = at_level(x_BN * self.levels(count, 6, 8.0), 0.03 + 0.17 * self.uniform(count, 1))
        x_BN = x_BN + torch.randn_like(x_BN) * 10 ** (-(40 + 50 * self.uniform(count, 1)) / 20)
        return x_BN, midi_BT, (voices == 1).float().expand(-1, self.frames)

    @torch.no_grad()
    def noise(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Noise with a random spectral envelope: no pitch."""
        spectrum = torch.fft.rfft(torch.randn(count, self.count, device=self.device))
        frequency = torch.linspace(0, self.data.sample_rate / 2, spectrum.shape[1], device=self.device).clamp(min=20)
        x_BN = torch.fft.irfft(spectrum * self.gains(frequency[None], count), self.count)
        x_BN = at_level(x_BN * self.levels(count, 6, 20.0), 0.01 + 0.14 * self.uniform(count, 1))
        nothing = torch.zeros(count, self.frames, device=self.device)
        return x_BN, nothing + 60.0, nothing


def at_level(x_BN: Tensor, rms_B1: Tensor) -> Tensor:
    return x_BN / x_BN.square().mean(1, keepdim=True).sqrt().clamp(min=1e-6) * rms_B1


def resampled(x_BN: Tensor, count: int) -> Tensor:
    """[B, count] of the same content, by cutting or padding the spectrum."""
    spectrum = torch.fft.rfft(x_BN)
    bins = count // 2 + 1
    spectrum = F.pad(spectrum, (0, max(0, bins - spectrum.shape[1])))[:, :bins].clone()
    spectrum[:, -1] = 0
    return torch.fft.irfft(spectrum, count) * (count / x_BN.shape[1])
