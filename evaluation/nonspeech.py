"""Sound in which nobody speaks, made from a seed on any device: noises, hums, clicks, tones, fans, rain, near silence.

Everything is mono at 16 kHz. Whatever is random about a sound's shape comes from numpy, so that the kinds, lengths and
levels of a seed are the same on every device; only the samples of its noise come from the device's own generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

SAMPLE_RATE = 16_000
LEAST_S, MOST_S = 1.0, 30.0
LOWEST_DB = -60.0
"""The peak of a sound lies between this and full scale."""
SILENCE_DB = (-96.0, -66.0)
"""The peak of what is nearly silent."""
STEP = SAMPLE_RATE // 10
"""Lengths are multiples of this: each new length of an FFT costs a GPU time."""


class Nonspeech:
    """Makes sounds of random kind, length and level."""

    def __init__(self, seed: int, device: str | torch.device = "cpu") -> None:
        self.rng = np.random.default_rng(seed)
        self.device = torch.device(device)
        self.generator = torch.Generator(self.device).manual_seed(seed)

    def sounds(self, count: int) -> Iterator[tuple[str, Tensor]]:
        """(kind, waveform [N]) of `count` sounds; each kind comes equally often."""
        names = list(KINDS)
        for index in range(count):
            kind = names[index % len(names)]
            # short ones as often as long ones, on a logarithmic scale
            seconds = LEAST_S * (MOST_S / LEAST_S) ** self.rng.uniform()
            samples = STEP * int(seconds * SAMPLE_RATE / STEP)
            wave_N = KINDS[kind](self, samples)
            low, high = SILENCE_DB if kind == "silence" else (LOWEST_DB, 0.0)
            yield kind, wave_N / wave_N.abs().amax().clamp(min=1e-9) * 10 ** (self.rng.uniform(low, high) / 20)

    def white(self, samples: int) -> Tensor:
        return torch.randn(samples, generator=self.generator, device=self.device)

    def time(self, samples: int) -> Tensor:
        return torch.arange(samples, device=self.device, dtype=torch.float64) / SAMPLE_RATE

    def sine(self, samples: int, hertz: float) -> Tensor:
        return (2 * math.pi * (hertz * self.time(samples) + self.rng.uniform())).sin().float()

    def filtered(self, wave_N: Tensor, gain: Callable[[Tensor], Tensor]) -> Tensor:
        """The sound with the gain that a function gives for each frequency in Hz."""
        spectrum_F = torch.fft.rfft(wave_N)
        hertz_F = torch.linspace(0, SAMPLE_RATE / 2, len(spectrum_F), device=self.device).clamp(min=20)
        return torch.fft.irfft(spectrum_F * gain(hertz_F), len(wave_N))

    def wandering(self, samples: int, range_db: float, rate: float) -> Tensor:
        """A level that wanders over a range, `rate` times a second, as gains [N]."""
        nodes = max(2, int(samples / SAMPLE_RATE * rate) + 2)
        db = torch.from_numpy(-range_db * self.rng.uniform(size=nodes)).float().to(self.device)
        level_N = torch.nn.functional.interpolate(db[None, None], samples, mode="linear", align_corners=True)[0, 0]
        return 10 ** (level_N / 20)

    def impulses(self, samples: int, rate: float) -> Tensor:
        """Single samples of random height and sign, about `rate` a second and at least one."""
        count = max(1, int(self.rng.poisson(rate * samples / SAMPLE_RATE)))
        places = torch.from_numpy(self.rng.integers(samples, size=count)).to(self.device)
        heights = torch.from_numpy(self.rng.normal(size=count)).float().to(self.device)
        return torch.zeros(samples, device=self.device).index_put_((places,), heights)

    def noise(self, samples: int) -> Tensor:
        """Noise with a random tilt and up to two resonances, steady or swelling."""
        tilt, corner = self.rng.uniform(-2.0, 0.6), self.rng.uniform(60, 1500)
        peaks = [
            (math.log(self.rng.uniform(150, 7000)), self.rng.uniform(0.05, 0.5), self.rng.uniform(0, 10))
            for _ in range(self.rng.integers(3))
        ]

        def gain(hertz_F: Tensor) -> Tensor:
            gain_F = (1 + hertz_F / corner) ** tilt
            for centre, width, height in peaks:
                gain_F = gain_F * (1 + height * torch.exp(-((hertz_F.log() - centre) ** 2) / (2 * width**2)))
            return gain_F

        return self.filtered(self.white(samples), gain) * self.wandering(samples, self.rng.choice([0, 6, 30]), 0.7)

    def hum(self, samples: int) -> Tensor:
        """Mains hum and its harmonics, with a little noise."""
        mains, fall = self.rng.choice([50.0, 60.0]) * self.rng.uniform(0.995, 1.005), self.rng.uniform(0.3, 1.8)
        wave_N = self.white(samples) * 10 ** (-self.rng.uniform(20, 60) / 20)
        for number in range(1, int(self.rng.integers(3, 40))):
            wave_N += self.sine(samples, mains * number) * self.rng.uniform(0.1, 1) / number**fall
        return wave_N

    def clicks(self, samples: int) -> Tensor:
        """Knocks and crackle: impulses through a short resonance, over faint noise."""
        rate, decay = 10 ** self.rng.uniform(-0.3, 2.0), 10 ** self.rng.uniform(-3.3, -1.3)
        span = min(samples, int(8 * decay * SAMPLE_RATE) + 2)
        response = self.sine(span, self.rng.uniform(80, 6000)) * torch.exp(-self.time(span) / decay).float()
        size = STEP * -(-(samples + span) // STEP)
        wave_N = torch.fft.irfft(
            torch.fft.rfft(self.impulses(samples, rate), size) * torch.fft.rfft(response, size), size
        )[:samples]
        return wave_N + self.white(samples) * wave_N.abs().amax() * 10 ** (-self.rng.uniform(30, 80) / 20)

    def tones(self, samples: int) -> Tensor:
        """Steady, beeping or gliding tones, one to four at once."""
        wave_N = torch.zeros(samples, device=self.device)
        time_N = self.time(samples)
        for _ in range(self.rng.integers(1, 5)):
            start, glide = 10 ** self.rng.uniform(1.8, 3.7), self.rng.choice([0.0, self.rng.uniform(-1, 1)])
            hertz_N = start * 2 ** (glide * time_N / time_N[-1])
            phase_N = 2 * math.pi * torch.cumsum(hertz_N / SAMPLE_RATE, 0)
            harmonics = int(self.rng.integers(1, 6))
            for number in range(1, harmonics + 1):
                if start * 2 ** abs(glide) * number < SAMPLE_RATE / 2:
                    wave_N += (number * phase_N).sin().float() / number
        if self.rng.uniform() < 0.4:
            period, on = self.rng.uniform(0.15, 2.0), self.rng.uniform(0.2, 0.8)
            wave_N = wave_N * ((time_N % period) < on * period)
        return wave_N + self.white(samples) * 10 ** (-self.rng.uniform(30, 90) / 20)

    def fan(self, samples: int) -> Tensor:
        """A fan or a motor: low noise that its blades modulate, and their tone."""
        blades, corner = self.rng.uniform(20, 250), self.rng.uniform(100, 900)
        wave_N = self.filtered(self.white(samples), lambda hertz_F: 1 / (1 + (hertz_F / corner) ** 2))
        wave_N = wave_N / wave_N.std().clamp(min=1e-9) * (1 + self.rng.uniform(0, 0.8) * self.sine(samples, blades))
        for number in range(1, 5):
            wave_N += self.rng.uniform(0, 1.5) / number * self.sine(samples, blades * number)
        return wave_N * self.wandering(samples, 3.0, 0.5)

    def rain(self, samples: int) -> Tensor:
        """Hiss and drops."""
        drops = self.filtered(
            self.impulses(samples, 10 ** self.rng.uniform(1.5, 3.3)),
            lambda hertz_F: (hertz_F / 2500) / (1 + (hertz_F / 2500) ** 2),
        )
        hiss = self.filtered(self.white(samples), lambda hertz_F: (hertz_F / 1000).clamp(max=1) ** 0.5)
        drops = drops / drops.abs().amax().clamp(min=1e-9)
        return drops + hiss * 10 ** (-self.rng.uniform(6, 40) / 20) * self.wandering(samples, 6.0, 0.3)

    def silence(self, samples: int) -> Tensor:
        """What a recorder gives when nothing sounds: faint noise."""
        tilt = self.rng.uniform(-1, 0)
        return self.filtered(self.white(samples), lambda hertz_F: (hertz_F / 1000) ** tilt)


KINDS: dict[str, Callable[[Nonspeech, int], Tensor]] = {
    "noise": Nonspeech.noise,
    "hum": Nonspeech.hum,
    "clicks": Nonspeech.clicks,
    "tones": Nonspeech.tones,
    "fan": Nonspeech.fan,
    "rain": Nonspeech.rain,
    "silence": Nonspeech.silence,
}
