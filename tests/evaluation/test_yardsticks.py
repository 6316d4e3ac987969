from __future__ import annotations

import math
import shutil
import subprocess
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from evaluation import yardsticks
from evaluation.quality import sdr_db
from evaluation.yardsticks import YARDSTICKS, Yardstick, YardstickError, round_trip, usable

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")


def sound(rate: int, seconds: float = 1.0) -> Tensor:
    """A tone that gets higher, with noise under it: nothing in it repeats."""
    time_N = torch.arange(round(seconds * rate)) / rate
    noise_N = torch.randn(len(time_N), generator=torch.Generator().manual_seed(0))
    return 0.3 * torch.sin(2 * torch.pi * (200 + 400 * time_N) * time_N) + 0.02 * noise_N


def lag(x_N: Tensor, y_N: Tensor) -> int:
    """By how many samples y is later than x: where their cross-correlation is highest."""
    size = 2 * len(x_N)
    spectrum = np.conj(np.fft.rfft(x_N.numpy(), size)) * np.fft.rfft(y_N.numpy(), size)
    best = int(np.argmax(np.fft.irfft(spectrum)))
    return best - size if best > len(x_N) else best


def test_lag_of_a_delayed_sound() -> None:
    x_N = sound(8_000)
    assert lag(x_N, x_N) == 0
    assert lag(x_N, x_N.roll(7)) == 7
    assert lag(x_N, x_N.roll(-7)) == -7


@needs_ffmpeg
@pytest.mark.parametrize("yardstick", YARDSTICKS, ids=lambda one: one.name)
@pytest.mark.parametrize("rate", [16_000, 24_000, 44_100, 48_000])
def test_a_round_trip_is_aligned_and_like_its_input(yardstick: Yardstick, rate: int) -> None:
    x_N = sound(rate)
    y_N = round_trip(x_N, rate, yardstick)
    assert y_N.shape == x_N.shape
    assert y_N.dtype == torch.float32
    assert lag(x_N, y_N) == 0
    assert sdr_db(x_N, y_N) > 10
    assert not torch.equal(x_N, y_N)


@needs_ffmpeg
@pytest.mark.parametrize("rate", [16_000, 24_000])
@pytest.mark.parametrize("kind", ["MP3", "Opus"])
def test_more_bits_are_nearer(kind: str, rate: int) -> None:
    x_N = sound(rate)
    low, high = (sdr_db(x_N, round_trip(x_N, rate, one)) for one in YARDSTICKS if one.name.startswith(kind))
    assert high > low + 1


@needs_ffmpeg
@pytest.mark.parametrize("yardstick", YARDSTICKS, ids=lambda one: one.name)
def test_short_sounds_and_odd_rates(yardstick: Yardstick) -> None:
    for rate, count in ((24_000, 100), (24_000, 3_000), (22_050, 22_051), (96_000, 9_600)):
        x_N = sound(rate)[:count] if count < rate else sound(rate, 2.0)[:count]
        y_N = round_trip(x_N, rate, yardstick)
        assert y_N.shape == x_N.shape
        assert y_N.isfinite().all()


@needs_ffmpeg
def test_the_level_of_an_mp3_is_that_of_its_input() -> None:
    x_N = sound(24_000)
    y_N = round_trip(x_N, 24_000, YARDSTICKS[1])
    assert 20 * math.log10(y_N.norm() / x_N.norm()) == pytest.approx(0, abs=0.1)


@needs_ffmpeg
def test_all_are_usable_with_a_whole_ffmpeg() -> None:
    assert usable() == (list(YARDSTICKS), "")


def test_without_ffmpeg_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: None)
    assert usable() == ([], "ffmpeg is not installed")


def test_an_ffmpeg_without_an_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: f"/somewhere/{program}")
    monkeypatch.setattr(yardsticks, "run", lambda *arguments, samples: b" A....D libmp3lame  MP3\n A..... flac  FLAC\n")
    assert usable() == (list(YARDSTICKS[:2]), "this ffmpeg lacks libopus")


def test_errors_of_ffmpeg_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def outcome(result: Any) -> str:
        def started(*args: Any, **kwargs: Any) -> Any:
            if isinstance(result, Exception):
                raise result
            return result

        monkeypatch.setattr(subprocess, "run", started)
        with pytest.raises(YardstickError) as caught:
            round_trip(sound(8_000), 8_000, YARDSTICKS[0])
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert outcome(FileNotFoundError("no ffmpeg")) == "ffmpeg: no ffmpeg"
    assert "timed out" in outcome(subprocess.TimeoutExpired("ffmpeg", 120))
    failed: Any = subprocess.CompletedProcess([], 1, b"", b"Unknown encoder\n 'libmp3lame'\n")
    assert outcome(failed) == "ffmpeg: Unknown encoder 'libmp3lame'"
    # it ends without an error and writes nothing
    assert "MP3 file cannot be read" in outcome(subprocess.CompletedProcess([], 0, b"", b""))
