"""Training sound for the starter models: recordings by manifest, and sound made here.

Made here are tones, chords, glides, noise, and speech by espeak-ng. Everything is mono at one sampling rate. A `Sound`
may come with copies whose pitch was moved by a known number of semitones while formants and length stay: exact for the
tones made here, by the `rubberband` program for recordings.
"""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
import soxr
from safetensors import safe_open
from safetensors.numpy import save_file

from hooks.files import whole_file

PITCHED = ("digits", "ljspeech", "speech_misc", "keywords", "orders", "notes", "singing")
"""Subsets whose clips have a pitch that can be moved."""

Waveform = np.ndarray
"""Mono float32 samples in [-1, 1]."""


@dataclass
class Sound:
    """One clip, and copies of it at other pitches as (semitones, waveform)."""

    group: str
    waveform: Waveform
    shifted: list[tuple[float, Waveform]] = field(default_factory=list)


def read_rows(audio: Path, split: str, rooms: bool = False) -> Iterator[tuple[str, Path, dict[str, str]]]:
    """(subset, file, manifest row) of every clip of a split, in all subsets below the folder `audio`.

    Room impulse responses are no sounds to listen to: they come instead of the clips, with `rooms`.
    """
    for manifest in sorted(audio.glob("*/manifest.csv")):
        with manifest.open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["split"] == split and (row["label"] == "rir") == rooms:
                    yield manifest.parent.name, manifest.parent / row["path"], row


def read_mono(path: Path, sample_rate: int) -> Waveform:
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono = samples.mean(axis=1)
    return mono if rate == sample_rate else soxr.resample(mono, rate, sample_rate).astype(np.float32)


def shift_pitch(waveform: Waveform, sample_rate: int, semitones: float) -> Waveform:
    """Pitch moved with formants and length kept, by the `rubberband` program (a training-time tool only)."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.wav", Path(folder) / "out.wav"
        soundfile.write(source, waveform, sample_rate, subtype="FLOAT")
        command = ["rubberband", "--quiet", "--formant", "--pitch", f"{semitones:.4f}", str(source), str(target)]
        subprocess.run(command, check=True, capture_output=True)
        shifted = soundfile.read(target, dtype="float32")[0]
    fitted = np.zeros_like(waveform)
    fitted[: min(len(shifted), len(fitted))] = shifted[: len(fitted)]
    # the program may change the level a little; only the pitch is to differ
    return fitted * (rms(waveform) / max(rms(fitted), 1e-6))


def rms(waveform: Waveform) -> float:
    return float(np.sqrt(np.mean(np.square(waveform)) + 1e-12))


def speak(texts: Sequence[str], sample_rate: int, rng: np.random.Generator) -> Iterator[Waveform]:
    """Sentences by espeak-ng in voices, speeds and pitches drawn at random."""
    variants = ["", "+m1", "+m3", "+m7", "+f1", "+f2", "+f4", "+croak"]
    accents = ["en-us", "en-gb", "en-gb-scotland", "en-029"]
    for text in texts:
        voice = f"{rng.choice(accents)}{rng.choice(variants)}"
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / "speech.wav"
            options = ["-v", voice, "-s", str(rng.integers(120, 200)), "-p", str(rng.integers(20, 80))]
            subprocess.run(["espeak-ng", *options, "-w", str(target), text], check=True, capture_output=True)
            yield read_mono(target, sample_rate)


def envelope(frequency: Waveform, rng: np.random.Generator) -> Waveform:
    """A random smooth spectral envelope: a tilt and a few resonances, as a linear gain at each frequency (Hz)."""
    slope, corner = rng.uniform(-2.2, -0.3), rng.uniform(100, 800)
    gain = (1 + frequency / corner) ** slope
    for _ in range(rng.integers(0, 4)):
        centre, width = np.exp(rng.uniform(np.log(300), np.log(6000))), rng.uniform(0.05, 0.4)
        gain = gain * (1 + rng.uniform(0, 6) * np.exp(-(np.log(frequency / centre) ** 2) / (2 * width**2)))
    return gain


def make_tone(seconds: float, sample_rate: int, rng: np.random.Generator, semitones: Sequence[float]) -> Sound:
    """A harmonic tone (steady, gliding or with vibrato) or a chord of such, and exact copies at other pitches."""
    time = np.arange(int(seconds * sample_rate)) / sample_rate
    outputs = [np.zeros_like(time) for _ in range(1 + len(semitones))]
    chord = rng.choice([1, 1, 1, 2, 3])
    decay = rng.choice([0.0, 0.0, 1.0, 3.0])
    for _ in range(chord):
        midi = rng.uniform(33, 88) + rng.choice([0, 0, 1]) * rng.uniform(-7, 7) * time / seconds
        midi = midi + rng.choice([0, 0.3]) * rng.uniform() * np.sin(2 * np.pi * rng.uniform(4, 7) * time)
        # a slow random walk of some cents: no real sound is exactly periodic
        midi = midi + 0.03 * np.interp(time, np.linspace(0, seconds, 40), rng.standard_normal(40))
        seed = rng.integers(2**31)
        count, sparse = rng.integers(1, 50), rng.choice([1, 1, 1, 2])
        starts = rng.uniform(0, 2 * np.pi, 64)
        for output, shift in zip(outputs, (0.0, *semitones), strict=True):
            f0 = 440.0 * 2 ** ((midi + shift - 69) / 12)
            phase = 2 * np.pi * np.cumsum(f0) / sample_rate
            for harmonic in range(1, count + 1, sparse):
                if harmonic * f0.max() > 0.48 * sample_rate:
                    break
                gain = envelope(np.array([harmonic * f0.mean()]), np.random.default_rng(seed))[0]
                output += gain * np.sin(harmonic * phase + starts[harmonic])
    shape = np.exp(-decay * time) * np.clip(time / 0.01, 0, 1) * np.clip((seconds - time) / 0.01, 0, 1)
    shape = shape * 10 ** (np.interp(time, np.linspace(0, seconds, 6), rng.uniform(-8, 0, 6)) / 20)
    level = rng.uniform(0.03, 0.2)
    waves = [(output * shape * level / rms(output)).clip(-1, 1).astype(np.float32) for output in outputs]
    return Sound("tones", waves[0], list(zip(semitones, waves[1:], strict=True)))


def make_noise(seconds: float, sample_rate: int, rng: np.random.Generator) -> Sound:
    """Noise with a random spectral envelope and a level that wanders."""
    count = int(seconds * sample_rate)
    spectrum = np.fft.rfft(rng.standard_normal(count))
    frequency = np.fft.rfftfreq(count, 1 / sample_rate).clip(min=20)
    noise = np.fft.irfft(spectrum * envelope(frequency, rng), count)
    noise *= 10 ** (np.interp(np.arange(count), np.linspace(0, count, 8), rng.uniform(-20, 0, 8)) / 20)
    return Sound("noise", (noise * rng.uniform(0.01, 0.15) / rms(noise)).clip(-1, 1).astype(np.float32))


def collect(audio: Path, sample_rate: int, split: str = "train", shifts: int = 2, seed: int = 0) -> list[Sound]:
    """All recordings of a split with `shifts` pitch-moved copies of each pitched one, and sound made here.

    Raises:
        FileNotFoundError: no manifest lies below `audio`, or `rubberband` or `espeak-ng` is not installed.
    """
    for program in ("rubberband", "espeak-ng"):
        if shutil.which(program) is None:
            raise FileNotFoundError(
                f"training needs the program {program!r}: install it with the system's package manager"
            )
    rng = np.random.default_rng(seed)
    rows = list(read_rows(audio, split))
    if not rows:
        raise FileNotFoundError(f"no */manifest.csv with clips of split {split!r} below {audio}")
    sounds = [Sound(subset, read_mono(path, sample_rate)) for subset, path, _ in rows]
    texts = [row["text"] for _, _, row in rows if len(row["text"].split()) > 2]
    spoken = [texts[i] for i in rng.integers(len(texts), size=250)] if texts else []
    sounds += [Sound("espeak", wave) for wave in speak(spoken, sample_rate, rng)]

    def with_copies(job: tuple[Sound, list[float]]) -> None:
        sound, moves = job
        sound.shifted = [(move, shift_pitch(sound.waveform, sample_rate, move)) for move in moves]

    jobs = []
    for sound in sounds:
        if sound.group in (*PITCHED, "espeak") and shifts:
            copies = shifts * 2 if sound.group in ("notes", "singing") else shifts
            moves = rng.uniform(0.4, 3.5, copies) * np.resize([1.0, -1.0], copies)
            jobs.append((sound, [float(move) for move in moves]))
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(with_copies, jobs))
    moves = [-3.0, -2.0, -1.0, 1.0, 2.0, 3.0]
    for _ in range(300):
        chosen = [float(m) for m in rng.choice(moves, 2, replace=False)] if shifts else []
        sounds.append(make_tone(2.0, sample_rate, rng, chosen))
    sounds += [make_noise(2.0, sample_rate, rng) for _ in range(100)]
    return sounds


def cached(audio: Path, folder: Path, sample_rate: int, split: str = "train", seed: int = 0) -> list[Sound]:
    """`collect`, kept in a file of `folder` for the next time: preparing takes minutes."""
    path = folder / f"sounds-{split}-{sample_rate}-{seed}.safetensors"
    if not path.exists():
        sounds = collect(audio, sample_rate, split, seed=seed)
        tensors, about = {}, []
        for index, sound in enumerate(sounds):
            about.append({"group": sound.group, "semitones": [semitones for semitones, _ in sound.shifted]})
            for copy, waveform in enumerate([sound.waveform, *(w for _, w in sound.shifted)]):
                tensors[f"{index}.{copy}"] = (waveform.clip(-1, 1) * 32767).round().astype(np.int16)
        folder.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial:
            save_file(tensors, partial, {"about": json.dumps(about)})
    with safe_open(str(path), "np") as file:

        def stored(index: int, copy: int) -> Waveform:
            return file.get_tensor(f"{index}.{copy}").astype(np.float32) / 32767

        about = json.loads(file.metadata()["about"])
        return [
            Sound(entry["group"], stored(i, 0), [(s, stored(i, 1 + c)) for c, s in enumerate(entry["semitones"])])
            for i, entry in enumerate(about)
        ]
