"""Round trips through MP3 and Opus: known codecs at known bit rates, to read the measures of others against.

The program ffmpeg encodes, with the default settings of its libmp3lame and libopus at a bit rate.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import soundfile
import torch
from torch import Tensor

from hooks.errors import AudioSteerError, shortened
from hooks.samples import resampled

PROGRAM = "ffmpeg"
SAMPLE_RATES = {
    "libmp3lame": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000),
    "libopus": (8000, 12000, 16000, 24000, 48000),
}
"""What each encoder takes, Hz."""
OPUS_RATE = 48_000
"""What its decoder gives, whatever the rate of the input."""
LAME_SCALE = 0.95
"""LAME lowers the level by that before it encodes at such bit rates: a choice of level and no loss, so it is undone."""
SECONDS = 120.0
"""More than any sound of an evaluation needs; after that the program is stopped."""


class YardstickError(AudioSteerError):
    """ffmpeg could not make a round trip."""


@dataclass(frozen=True)
class Yardstick:
    """A codec of ffmpeg at a bit rate."""

    name: str
    encoder: str
    suffix: str
    kbit_per_s: int


YARDSTICKS = (
    Yardstick("MP3 32 kbit/s", "libmp3lame", "mp3", 32),
    Yardstick("MP3 64 kbit/s", "libmp3lame", "mp3", 64),
    Yardstick("Opus 12 kbit/s", "libopus", "opus", 12),
    Yardstick("Opus 24 kbit/s", "libopus", "opus", 24),
)


def usable() -> tuple[list[Yardstick], str]:
    """The yardsticks that this machine can make, and why others are left out ("" where all can be made)."""
    if shutil.which(PROGRAM) is None:
        return [], f"{PROGRAM} is not installed"
    listed = run("-encoders", samples=b"").decode(errors="replace").split()
    there = [one for one in YARDSTICKS if one.encoder in listed]
    absent = sorted({one.encoder for one in YARDSTICKS} - {one.encoder for one in there})
    return there, f"this {PROGRAM} lacks {' and '.join(absent)}" if absent else ""


def round_trip(x_N: Tensor, sample_rate: int, yardstick: Yardstick) -> Tensor:
    """A waveform [N] encoded and decoded: [N] at the same rate, with the codec's delay taken off.

    A rate that the encoder does not take is raised to the next one that it does.

    Raises:
        YardstickError: ffmpeg is not there, or fails.
    """
    rates = SAMPLE_RATES[yardstick.encoder]
    rate = next((one for one in rates if one >= sample_rate), rates[-1])
    samples = resampled(x_N.detach().float().cpu(), sample_rate, rate).numpy()
    with TemporaryDirectory() as folder:
        # a file and no pipe: the delay of an MP3 is written into its head at the end
        path = Path(folder) / f"sound.{yardstick.suffix}"
        coding = ["-c:a", yardstick.encoder, "-b:a", f"{yardstick.kbit_per_s}k", str(path)]
        run("-f", "f32le", "-ar", str(rate), "-ac", "1", "-i", "pipe:0", *coding, samples=samples.tobytes())
        output, output_rate = decoded(path)
    output_N = resampled(torch.from_numpy(output), output_rate, sample_rate)[: len(x_N)]
    return torch.nn.functional.pad(output_N, (0, len(x_N) - len(output_N)))


def decoded(path: Path) -> tuple[np.ndarray, int]:
    """Samples [N] of an encoded file and their rate, without the delay that its head states.

    MP3 is read by libsndfile: ffmpeg 5.1 damages some frames of MP3 at 24 kHz ("overread, skip"). Opus is read by
    ffmpeg: libsndfile 1.2 does not start at the exact sample.

    Raises:
        YardstickError: it cannot be read.
    """
    if path.suffix == ".opus":
        written = run("-i", str(path), "-f", "f32le", "-ac", "1", "-ar", str(OPUS_RATE), "pipe:1", samples=b"")
        return np.frombuffer(written, dtype="<f4").copy(), OPUS_RATE
    try:
        samples, rate = soundfile.read(path, dtype="float32")
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise YardstickError(f"an MP3 file cannot be read ({error})") from error
    return samples / np.float32(LAME_SCALE), rate


def run(*arguments: str, samples: bytes) -> bytes:
    """What ffmpeg writes to its standard output; `samples` are its standard input.

    Raises:
        YardstickError: it is not there, fails, or does not end.
    """
    command = [PROGRAM, "-hide_banner", "-loglevel", "error", "-threads", "1", *arguments]
    try:
        done = subprocess.run(command, input=samples, capture_output=True, timeout=SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise YardstickError(f"{PROGRAM}: {error}") from error
    if done.returncode:
        raise YardstickError(f"{PROGRAM}: {shortened(done.stderr.decode(errors='replace'))}")
    return done.stdout
