"""Sounds as people have them: lengths that headers do not give, joined files, channels that cancel.

Those of `../shared/cases` are taken from there where that folder is; else the same are made.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import soundfile

CASES = Path(__file__).parents[2] / "shared" / "cases"
RATE = 24_000


def case(name: str, folder: Path) -> Path:
    """The file of a case, such as `vbr-mp3/loud-first.mp3`: from `../shared/cases`, or made in `folder`."""
    there = CASES / name
    if there.is_file():
        return there
    path = folder / Path(name).name
    path.write_bytes(MADE[name]())
    return path


def tone(seconds: float, hertz: float = 220.0, rate: int = RATE, level: float = 0.3) -> np.ndarray:
    return level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def encoded(
    samples: np.ndarray, rate: int = RATE, format: str = "WAV", subtype: str | None = None, **how: object
) -> bytes:
    file = io.BytesIO()
    with soundfile.SoundFile(
        file, "w", rate, 1 if samples.ndim == 1 else samples.shape[1], subtype, format=format, **how
    ) as target:
        for piece in np.array_split(samples, max(1, len(samples) // 4096)):  # Vorbis keeps a piece on the stack
            target.write(piece)
    return file.getvalue()


def without_first_frame(data: bytes) -> bytes:
    """An MP3 of 44.1 kHz without the frame that says how long it is."""
    kbit = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
    return data[144_000 * kbit[data[2] >> 4] // 44_100 + (data[2] >> 1 & 1) :]


def loud_first() -> bytes:
    rng = np.random.default_rng(1)
    sound = np.concatenate([0.3 * rng.standard_normal(44_100), tone(5, 440, 44_100, 0.02)])
    return without_first_frame(encoded(sound, 44_100, "MP3", compression_level=0.5, bitrate_mode="VARIABLE"))


def chained() -> bytes:
    return encoded(tone(4, 300), format="OGG") + encoded(tone(4, 500), format="OGG")


def cut_off() -> bytes:
    data = encoded(tone(1))
    return data[:4] + bytes(4) + data[8:40] + bytes(4) + data[44:]


def antiphase(sign: int) -> bytes:
    seconds = np.arange(2 * RATE) / RATE
    phase = 2 * np.pi * np.cumsum(140 + 20 * np.sin(2 * np.pi * 3 * seconds)) / RATE
    sound = sum(np.sin(k * phase) / k * np.exp(-(((k * 140 - 700) / 900) ** 2)) for k in range(1, 40))
    sound = 0.3 * sound / np.abs(sound).max() * (0.6 + 0.4 * np.sin(2 * np.pi * 2 * seconds))
    file = io.BytesIO()
    soundfile.write(file, np.stack([sound, sign * sound], axis=1), RATE, format="WAV")
    return file.getvalue()


def with_title_and_cue() -> bytes:
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", RATE, 1, format="WAV") as target:
        target.title = "Take 3"
        target.write(tone(1, 300, level=0.2))
    cue = struct.pack("<III4sIII", 1, 1, 12_000, b"data", 0, 0, 12_000)
    data = file.getvalue() + b"cue " + struct.pack("<I", len(cue)) + cue
    return data[:4] + struct.pack("<I", len(data) - 8) + data[8:]


MADE = {
    "vbr-mp3/loud-first.mp3": loud_first,
    "chained-ogg/chained.ogg": chained,
    "wav-size-0/cut-off.wav": cut_off,
    "antiphase/anti.wav": lambda: antiphase(-1),
    "antiphase/both.wav": lambda: antiphase(1),
    "metadata-lost/take.wav": with_title_and_cue,
    "mp3-to-wav/tone.mp3": lambda: encoded(tone(1.5), format="MP3"),
    "segment-end/tone.wav": lambda: encoded(tone(1, 300, 16_000, 0.2), 16_000),
    "language-late/takes/tone.wav": lambda: encoded(tone(1, 300, 16_000, 0.2), 16_000),
}
