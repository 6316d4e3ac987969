"""`python -m benchmarks.reading [FOLDER]`: what reading a sound costs beside libsndfile's own decoding.

Each format holds the same minute of stereo; with a folder its files are read too. Times are CPU times in ms, the best
of several. Beside the decoding, samples are turned to [channels, samples] and checked for NaN and damage; the header's
column is what it costs to find out whether the file is as long as it says.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import soundfile

from hooks.clip import audio_info, read_clip

RATE, SECONDS, TRIES = 44_100, 60, 8
FORMATS = ("wav", "flac", "ogg", "mp3", "aiff")


def write_all(folder: Path) -> list[Path]:
    """The same sound in each format: tones in noise, so that coders have something to do."""
    rng = np.random.default_rng(0)
    seconds = np.arange(RATE * SECONDS) / RATE
    tones = [0.2 * np.sin(2 * np.pi * hertz * seconds) for hertz in (220.0, 330.0)]
    sound = np.stack(tones, axis=1) + 0.02 * rng.standard_normal((len(seconds), 2))
    paths = [folder / f"minute.{ending}" for ending in FORMATS]
    for path in paths:
        with soundfile.SoundFile(path, "w", RATE, 2) as file:
            for start in range(0, len(sound), 8192):  # Vorbis keeps a piece on the stack
                file.write(sound[start : start + 8192])
    return paths


def best_ms(call: Callable[[], object]) -> float:
    times = []
    for _ in range(TRIES):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return 1000 * min(times)


def main(arguments: list[str]) -> None:
    with tempfile.TemporaryDirectory() as made:
        paths = write_all(Path(made))
        paths += sorted(path for path in Path(arguments[0]).rglob("*.*") if path.is_file()) if arguments else []
        print("file | soundfile.read | read_clip | of that the header")
        for path in paths:
            plain = best_ms(partial(soundfile.read, path, dtype="float32", always_2d=True))
            ours = best_ms(partial(read_clip, path))
            header = best_ms(partial(audio_info, path))
            print(f"{path.name} | {plain:.2f} | {ours:.2f} ({100 * (ours / plain - 1):+.1f} %) | {header:.2f}")


if __name__ == "__main__":
    main(sys.argv[1:])
