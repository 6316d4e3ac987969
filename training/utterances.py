"""Training speech for the starter speech models: recordings and espeak-ng, strung together, in noise and in rooms.

Everything is mono at 16 kHz. Pieces are prepared once (`speech_pieces`); `Mixer` strings them together for every batch
anew. The only examples without words are windows of silence, digital or with a faint hiss: that there is something to
say of no other sound either is what the model, like its big sisters, does not know.
"""

from __future__ import annotations

import json
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
from safetensors import safe_open
from safetensors.numpy import save_file

from evaluation.accents import VARIANTS, speak
from hooks.errors import require
from hooks.files import whole_file
from training.common_words import COMMON_WORDS
from training.sounds import Waveform, read_mono, read_rows, rms

SAMPLE_RATE = 16_000
SPOKEN = ("digits", "keywords", "orders", "ljspeech", "speech_misc")
NOISES = ("esc10", "noise_rir")
SHORTEST_S = 0.5
SILENT = 0.05
"""Share of the windows in which nobody speaks."""
SHARES = {"digits": 3.0, "keywords": 2.0, "orders": 2.5, "ljspeech": 0.8, "speech_misc": 0.8, "espeak": 4.0}
ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-029", "en-gb-x-gbclan")


@dataclass
class Piece:
    """Some words and how somebody says them."""

    group: str
    speaker: str
    text: str
    waveform: Waveform


def vocabulary(audio: Path) -> list[str]:
    """The words of the training texts and the frequent ones, sorted."""
    return sorted({word for _, _, row in read_rows(audio, "train") for word in row["text"].split()} | {*COMMON_WORDS})


def espeak(text: str, voice: str, words_per_minute: int, pitch: int) -> Waveform:
    """One utterance by the espeak-ng program."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "speech.wav"
        speak(text, voice, words_per_minute, pitch, target)
        return read_mono(target, SAMPLE_RATE)


def spoken_pieces(audio: Path, split: str) -> list[Piece]:
    """All recordings with a text of a split."""
    return [
        Piece(subset, row["speaker"] or path.stem, row["text"], read_mono(path, SAMPLE_RATE))
        for subset, path, row in read_rows(audio, split)
        if subset in SPOKEN and row["text"]
    ]


def synthetic_pieces(audio: Path, count: int, rng: np.random.Generator) -> list[Piece]:
    """`count` utterances of espeak-ng: training texts as they are, and words in an order that means nothing."""
    texts = [row["text"] for subset, _, row in read_rows(audio, "train") if len(row["text"].split()) > 2]
    words = vocabulary(audio)
    jobs = []
    for _ in range(count):
        if rng.uniform() < 0.4:
            chosen = texts[rng.integers(len(texts))].split()[: rng.integers(4, 14)]
        else:
            chosen = [words[i] for i in rng.integers(len(words), size=rng.integers(1, 8))]
        voice = f"{rng.choice(ACCENTS)}{rng.choice(VARIANTS)}"
        jobs.append((" ".join(chosen), voice, int(rng.integers(120, 220)), int(rng.integers(15, 85))))

    def spoken(job: tuple[str, str, int, int]) -> Piece:
        return Piece("espeak", job[1], job[0], espeak(*job))

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(spoken, jobs))


def speech_pieces(audio: Path, cache: Path, count: int = 6000, seed: int = 0) -> list[Piece]:
    """Recorded and synthetic pieces of the train split, kept in a file of `cache` for the next time.

    Raises:
        FileNotFoundError: there are no recordings below `audio`.
        EvaluationError: espeak-ng is not installed.
    """
    path = cache / f"speech-{count}-{seed}.safetensors"
    if not path.exists():
        recorded = spoken_pieces(audio, "train")
        if not recorded:
            raise FileNotFoundError(f"no */manifest.csv with spoken clips of split 'train' below {audio}")
        pieces = [*recorded, *synthetic_pieces(audio, count, np.random.default_rng(seed))]
        about = [{"group": p.group, "speaker": p.speaker, "text": p.text} for p in pieces]
        tensors = {str(i): (p.waveform.clip(-1, 1) * 32767).round().astype(np.int16) for i, p in enumerate(pieces)}
        cache.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial:
            save_file(tensors, partial, {"about": json.dumps(about)})
    with safe_open(str(path), "np") as file:
        return [
            Piece(**entry, waveform=file.get_tensor(str(i)).astype(np.float32) / 32767)
            for i, entry in enumerate(json.loads(file.metadata()["about"]))
        ]


def backgrounds(audio: Path) -> tuple[list[Waveform], list[Waveform]]:
    """(noises, room impulse responses) of the train split."""
    noises = [read_mono(path, SAMPLE_RATE) for subset, path, _ in read_rows(audio, "train") if subset in NOISES]
    rooms = [read_mono(path, SAMPLE_RATE) for _, path, _ in read_rows(audio, "train", rooms=True)]
    return noises, rooms


class Mixer:
    """Strings pieces together, and puts what comes out into rooms and noise."""

    def __init__(self, pieces: list[Piece], noises: list[Waveform], rooms: list[Waveform], seed: int) -> None:
        self.groups: dict[str, list[Piece]] = {}
        for piece in pieces:
            self.groups.setdefault(piece.group, []).append(piece)
        shares = np.array([SHARES[group] for group in self.groups])
        self.names, self.shares = list(self.groups), shares / shares.sum()
        self.noises, self.rooms = noises, rooms
        self.rng = np.random.default_rng(seed)

    def draw(self, seconds: float) -> tuple[Waveform, str]:
        """Up to `seconds` of speech in a room and in noise, and its words; oftener short than long. Or silence."""
        rng, limit = self.rng, int(seconds * SAMPLE_RATE)
        if rng.uniform() < SILENT:
            return self.silence(int(rng.uniform(0.1, 1.0) * limit)), ""
        wanted = limit * (SHORTEST_S / seconds) ** rng.uniform() ** 0.5
        words: list[str] = []
        length = int(rng.uniform(0, 0.5) * SAMPLE_RATE)
        parts = [np.zeros(length, np.float32)]
        while not words or length < wanted:
            group = self.groups[self.names[rng.choice(len(self.names), p=self.shares)]]
            piece = group[rng.integers(len(group))]
            wave = self.voiced(piece.waveform)
            gap = int(rng.uniform(0.05, 0.5) * SAMPLE_RATE)
            if length + len(wave) + gap > limit:
                if words:
                    break
                continue
            parts += [wave, np.zeros(gap, np.float32)]
            words.append(piece.text)
            length += len(wave) + gap
        return self.placed(np.concatenate(parts)), " ".join(words)

    def silence(self, length: int) -> Waveform:
        """Nothing at all, or coloured noise that is hardly there."""
        level_db = self.rng.uniform(-90, -65)
        return self.hiss(length) * (10 ** (level_db / 20)) * (self.rng.uniform() < 0.7)

    def voiced(self, wave: Waveform) -> Waveform:
        """The piece at another speed (and pitch with it) and level."""
        speed = self.rng.uniform(0.88, 1.14)
        changed = soxr.resample(wave, speed * SAMPLE_RATE, SAMPLE_RATE, "MQ").astype(np.float32)
        return changed * (0.1 / max(rms(changed), 1e-3)) * 10 ** (self.rng.uniform(-6, 6) / 20)

    def placed(self, wave: Waveform) -> Waveform:
        """The speech in a room, through a telephone or in noise, each for a part of the examples, at any level."""
        rng = self.rng
        if self.rooms and rng.uniform() < 0.25:
            room = self.rooms[rng.integers(len(self.rooms))]
            direct = int(np.abs(room).argmax())
            wet = require("scipy.signal", "eval").fftconvolve(wave, room[direct:])[: len(wave)]
            wave = wet * (rms(wave) / max(rms(wet), 1e-6))
        if rng.uniform() < 0.3:
            # a recording at 8 kHz, as the digits are
            wave = soxr.resample(soxr.resample(wave, SAMPLE_RATE, 8000), 8000, SAMPLE_RATE)[: len(wave)]
        if rng.uniform() < 0.6:
            wave = wave + self.noise(len(wave)) * rms(wave) / 10 ** (rng.uniform(3, 35) / 20)
        return (wave * (10 ** (rng.uniform(-30, -12) / 20) / max(rms(wave), 1e-6))).clip(-1, 1).astype(np.float32)

    def noise(self, length: int) -> Waveform:
        """Noise of level 1: a recording, or coloured noise."""
        if self.noises and self.rng.uniform() < 0.6:
            noise = self.noises[self.rng.integers(len(self.noises))]
            start = self.rng.integers(max(1, len(noise) - length))
            noise = np.resize(noise[start : start + length], length)
            return noise / max(rms(noise), 1e-6)
        return self.hiss(length)

    def hiss(self, length: int) -> Waveform:
        """Coloured noise of level 1."""
        spectrum = np.fft.rfft(self.rng.standard_normal(length))
        slope = self.rng.uniform(-1.0, 0.2)
        noise = np.fft.irfft(spectrum * np.arange(1, len(spectrum) + 1) ** slope, length).astype(np.float32)
        return noise / max(rms(noise), 1e-6)
