"""A sound that is refused says why, by its own name."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from apps.page.settings import Limits, checked
from hooks import AudioFileError

Write = Callable[..., Path]


def refused(path: Path, limits: Limits | None = None) -> str:
    """What is said of a file that is not taken: one sentence, without the folder."""
    with pytest.raises(AudioFileError) as raised:
        checked(path, limits or Limits())
    text = str(raised.value)
    assert text.startswith(f"{path.name}: ")
    assert str(path.parent) not in text
    assert "\n" not in text
    return text


def header(frames: int, rate: int = 16_000, channels: int = 1) -> bytes:
    """The header of a wave file of 16 bits that says it holds so much."""
    size, wide = frames * channels * 2, 2 * channels
    form = struct.pack("<HHIIHH", 1, channels, rate, rate * wide & 0xFFFFFFFF, wide, 16)
    return struct.pack("<4sI8sI16s4sI", b"RIFF", 36 + size, b"WAVEfmt ", 16, form, b"data", size)


def test_a_good_sound_is_taken(sound: Write) -> None:
    info = checked(sound("a.wav", 1.5, 24_000, 2), Limits())
    assert (info.seconds, info.sample_rate, info.channels) == (1.5, 24_000, 2)


@pytest.mark.parametrize("name", ["Größe 音 ♪.wav", "- a b.wav", "-rf.wav", "a'b;c.wav", "wav", "a.b.c.WAV"])
def test_odd_names(tmp_path: Path, sound: Write, name: str) -> None:
    path = sound("a.wav").rename(tmp_path / name)
    assert checked(path, Limits()).path == path
    path.write_text("no sound")
    refused(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty (0 bytes)"),
        (b"dear friend,\nthis is a letter", "not a sound file"),
        (b"\x00" * 5000, "not a sound file"),
        (header(0), "has no samples"),
        (header(16_000 * 7200), "has no samples"),
        (header(1000, rate=400_000) + b"\x00" * 2000, "400000 Hz, at most 384000 Hz"),
        (header(1000, rate=2_000_000_000) + b"\x00" * 2000, "2000000000 Hz"),
        (header(1000, rate=1) + b"\x00" * 2000, "sampling rate 1 Hz"),
        (header(1000, channels=9) + b"\x00" * 18_000, "9 channels"),
        (header(10, channels=1000) + b"\x00" * 20_000, "1000 channels"),
    ],
)
def test_what_is_no_usable_sound(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    assert says in refused(path)


def test_what_is_no_file(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "none.wav")
    (tmp_path / "folder.wav").mkdir()
    assert "is a folder" in refused(tmp_path / "folder.wav")


def test_a_long_sound_is_refused_by_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "long.flac", np.zeros(8000 * 7200, np.int16), 8000)
    monkeypatch.setattr("apps.page.settings.read_blocks", lambda *_: pytest.fail("was decoded"))
    assert "lasts 120.0 minutes" in refused(tmp_path / "long.flac")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [0, 99_999])
def test_samples_that_are_no_numbers(tmp_path: Path, bad: float, where: int) -> None:
    samples = np.zeros(100_000, np.float32)
    samples[where] = bad
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    assert "not finite" in refused(tmp_path / "a.wav")


def test_a_damaged_sound(sound: Write, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", np.random.default_rng(0).normal(0, 0.1, 100_000), 16_000)
    content = bytearray((tmp_path / "a.flac").read_bytes())
    content[len(content) // 2 :] = b"\x00" * (len(content) - len(content) // 2)
    (tmp_path / "a.flac").write_bytes(content)
    assert any(word in refused(tmp_path / "a.flac") for word in ("damaged", "truncated"))


def test_limits_are_the_ones_given(sound: Write) -> None:
    path = sound("a.wav", 2.0, 48_000, 2)
    assert "0.4 MB, at most 0.1 MB" in refused(path, Limits(max_mb=0.1))
    assert "0.0 minutes, at most 0.02 minutes" in refused(path, Limits(max_minutes=0.02))
    assert "at most 44100 Hz" in refused(path, Limits(max_rate_hz=44_100))
    assert "2 channels, at most 1 " in refused(path, Limits(max_channels=1))
    exact = Limits(path.stat().st_size / 1e6, 2.0 / 60, 48_000, 2)
    assert checked(path, exact).channels == 2
