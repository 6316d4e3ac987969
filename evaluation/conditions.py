"""Hard cases for a gate: the same clips in noise, through the same narrow channel, and side by side in long files.

Everything is made from clips and a seed, mono at 16 kHz, and is the same on every machine.
"""

from __future__ import annotations

import shutil
import subprocess
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from evaluation.dataset import LabelledSound, LabelledSpan
from hooks.clip import Clip, as_clip

RATE = 16_000
SNRS_DB = (20.0, 10.0, 5.0, 0.0, -5.0)
LEVEL_DB = -26.0
"""RMS in dB of full scale to which the channel `same level` brings everything."""
FLOOR_DB = -55.0
"""RMS of the noise that the channel `noise floor` adds."""
LONG_S = 180.0
PAUSE_S = 1.0


def samples_of(sound: LabelledSound) -> Tensor:
    """[N] at `RATE`, one channel."""
    return as_clip(sound.source, RATE).resampled(RATE).mixed(1).waveform[0].float()


def made(sound: LabelledSound, condition: str, samples_N: Tensor) -> LabelledSound:
    return replace(sound, source=Clip(samples_N[None], RATE), name=f"{sound.name} ({condition})")


def generator_for(sound: LabelledSound, seed: int) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(sound.name.encode()) + seed)


def rms(samples_N: Tensor) -> Tensor:
    return samples_N.square().mean().sqrt().clamp(min=1e-9)


# --- speech in noise ---


def in_noise(
    speech: Sequence[LabelledSound], noises: Sequence[LabelledSound], snr_db: float, seed: int = 0
) -> list[LabelledSound]:
    """Each clip over a noise that is drawn for it, repeated or cut to its length, at a ratio of RMS levels."""
    mixed = []
    for sound in speech:
        rng, speech_N = generator_for(sound, seed), samples_of(sound)
        noise_N = samples_of(noises[int(rng.integers(len(noises)))])
        noise_N = noise_N.repeat(-(-len(speech_N) // len(noise_N)))
        start = int(rng.integers(len(noise_N) - len(speech_N) + 1))
        noise_N = noise_N[start : start + len(speech_N)]
        gain = rms(speech_N) / rms(noise_N) * 10 ** (-snr_db / 20)
        sum_N = speech_N + gain * noise_N
        mixed.append(made(sound, f"SNR {snr_db:g} dB", sum_N / sum_N.abs().max().clamp(min=1.0)))
    return mixed


# --- channels: speech and what is not speech through the same one, so that a gate cannot tell recordings apart ---


def telephone(samples_N: Tensor, rng: np.random.Generator) -> Tensor:
    """8 kHz and back."""
    narrow = Clip(samples_N[None], RATE).resampled(8000).resampled(RATE).waveform[0]
    return torch.nn.functional.pad(narrow[: len(samples_N)], (0, max(0, len(samples_N) - len(narrow))))


def same_level(samples_N: Tensor, rng: np.random.Generator) -> Tensor:
    level_N = samples_N * 10 ** (LEVEL_DB / 20) / rms(samples_N)
    return level_N / level_N.abs().max().clamp(min=1.0)


def noise_floor(samples_N: Tensor, rng: np.random.Generator) -> Tensor:
    noise_N = torch.from_numpy(rng.standard_normal(len(samples_N))).float()
    return (samples_N + noise_N * 10 ** (FLOOR_DB / 20)).clamp(-1, 1)


def mp3(samples_N: Tensor, rng: np.random.Generator) -> Tensor:
    """MP3 at 32 kbit/s, by ffmpeg."""
    form = ["-f", "f32le", "-ar", str(RATE), "-ac", "1"]
    coding = ["ffmpeg", "-v", "error", *form, "-i", "-", "-b:a", "32k", "-f", "mp3", "-"]
    coded = subprocess.run(coding, input=samples_N.numpy().tobytes(), capture_output=True, check=True).stdout
    decoding = ["ffmpeg", "-v", "error", "-f", "mp3", "-i", "-", *form, "-"]
    decoded = subprocess.run(decoding, input=coded, capture_output=True, check=True).stdout
    return torch.from_numpy(np.frombuffer(decoded, np.float32).copy())


Channel = Callable[[Tensor, np.random.Generator], Tensor]


def channels() -> dict[str, Channel]:
    """Those that can be made here: MP3 needs ffmpeg."""
    known: dict[str, Channel] = {"8 kHz": telephone, "same level": same_level, "noise floor": noise_floor}
    return known | ({"MP3 32 kbit/s": mp3} if shutil.which("ffmpeg") else {})


def through(sounds: Sequence[LabelledSound], name: str, channel: Channel, seed: int = 0) -> list[LabelledSound]:
    return [made(sound, name, channel(samples_of(sound), generator_for(sound, seed))) for sound in sounds]


# --- speech beside noise ---


def long_files(
    speech: Sequence[LabelledSound], silent: Sequence[LabelledSound], seed: int = 0, seconds: float = LONG_S
) -> list[LabelledSound]:
    """Files of about `seconds` in which clips of speech and of what is not speech follow each other in random order, a
    short pause between them, until one kind is used up. Their text is that of their speech, in its order, and the
    intervals of the speech are labelled `speech`."""
    rng = np.random.default_rng(seed)
    kinds = {True: list(rng.permutation(len(speech))), False: list(rng.permutation(len(silent)))}
    pause_N = torch.zeros(round(PAUSE_S * RATE))
    files: list[LabelledSound] = []
    while kinds[True] and kinds[False]:
        parts: list[Tensor] = []
        texts: list[str] = []
        spans: list[LabelledSpan] = []
        length = 0
        while length < seconds * RATE and kinds[True] and kinds[False]:
            is_speech = bool(rng.integers(2))
            sound = (speech if is_speech else silent)[kinds[is_speech].pop()]
            samples_N = samples_of(sound)
            if is_speech:
                texts.append(sound.labels.get("text", ""))
                spans.append((length / RATE, (length + len(samples_N)) / RATE, "speech"))
            parts += [samples_N, pause_N]
            length += len(samples_N) + len(pause_N)
        if texts:
            labels = {"subset": "long", "text": " ".join(texts)}
            clip = Clip(torch.cat(parts)[None], RATE)
            files.append(LabelledSound(clip, f"long/{len(files)}", labels, tuple(spans)))
    return files
