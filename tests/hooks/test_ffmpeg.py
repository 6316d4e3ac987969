"""Files that only ffmpeg decodes: as long as they are, in the right order of channels, or refused with the remedy."""

from __future__ import annotations

import gc
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from hooks import AudioFileError, read_clip
from hooks.clip import as_clip, audio_info
from hooks.ffmpeg import ENDINGS, duration
from hooks.tags import read_tags
from tests.hard_sounds import tone

RATE = 48_000
needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")


def made(path: Path, *options: str) -> Path:
    """2 s of stereo: 300 Hz left, 500 Hz right and half as loud."""
    samples = np.stack([tone(2, 300, RATE), 0.5 * tone(2, 500, RATE)], axis=1)
    soundfile.write(path.with_suffix(".source.wav"), samples, RATE)
    command = ["ffmpeg", "-v", "error", "-i", str(path.with_suffix(".source.wav")), *options, str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


@needs_ffmpeg
@pytest.mark.parametrize(
    ("name", "options", "codec", "slack_s"),
    [
        ("a.m4a", (), "AAC", 0.03),
        ("a.m4a", ("-c:a", "alac"), "ALAC", 0.0),
        ("a.webm", ("-c:a", "libopus"), "OPUS", 0.03),
        ("a.mka", ("-c:a", "flac"), "FLAC", 0.0),
        ("a.mp4", ("-f", "lavfi", "-i", "color=size=32x32:duration=2", "-shortest"), "AAC", 0.05),
        ("a.aac", (), "AAC", 0.1),
        ("a.wma", (), "WMAV2", 0.1),
        # with another one's ending
        ("a.wav", ("-f", "ipod"), "AAC", 0.03),
    ],
)
def test_what_ffmpeg_decodes(name: str, options: tuple[str, ...], codec: str, slack_s: float, tmp_path: Path) -> None:
    path = made(tmp_path / name, *options)
    info = audio_info(path)
    assert (info.sample_rate, info.channels, info.subtype) == (RATE, 2, codec)
    assert abs(info.seconds - 2.0) <= slack_s
    clip = as_clip(path.read_bytes()) if name == "a.m4a" else read_clip(path)
    for channel, (hertz, level) in enumerate(((300, 0.3), (500, 0.15))):
        middle_N = clip.waveform[channel, RATE // 2 : 3 * RATE // 2]
        assert int(torch.fft.rfft(middle_N).abs().argmax()) == hertz
        assert float(middle_N.square().mean().sqrt()) == pytest.approx(level / 2**0.5, rel=0.05)
    assert duration(path) == pytest.approx(info.seconds, abs=0.1)


@needs_ffmpeg
@pytest.mark.parametrize("codec", ["pcm_f32le", "pcm_s32le", "pcm_s24le", "pcm_s16le"])
def test_w64_of_ffmpeg(codec: str, tmp_path: Path) -> None:
    """libsndfile alone takes its floats for integers."""
    path = made(tmp_path / "a.w64", "-c:a", codec)
    clip, want = read_clip(path), read_clip(tmp_path / "a.source.wav")
    assert torch.equal(clip.waveform, want.waveform) and clip.notes == ()


@needs_ffmpeg
def test_what_was_decoded_is_deleted_with_it(tmp_path: Path) -> None:
    info = audio_info(made(tmp_path / "a.m4a"))
    assert info.decoded is not None
    decoded = info.decoded.path
    assert decoded.is_file()
    del info
    gc.collect()
    assert not decoded.parent.exists()


@needs_ffmpeg
def test_a_file_is_decoded_once_while_it_is_in_use(tmp_path: Path) -> None:
    path = made(tmp_path / "a.m4a")
    first, second = audio_info(path), audio_info(path)
    assert first.decoded is second.decoded
    written = made(tmp_path / "b.m4a", "-t", "1").read_bytes()
    path.write_bytes(written)
    assert audio_info(path).frames < first.frames


@needs_ffmpeg
def test_titles_come_along(tmp_path: Path) -> None:
    path = made(tmp_path / "a.m4a", "-metadata", "title=T", "-metadata", "artist=Ann", "-metadata", "track=3")
    assert read_tags(audio_info(path)).strings == {"title": "T", "artist": "Ann", "tracknumber": "3"}


@needs_ffmpeg
def test_damaged_files_and_those_without_sound_are_one_line(tmp_path: Path) -> None:
    whole = made(tmp_path / "a.m4a").read_bytes()
    cut = tmp_path / "cut.m4a"
    cut.write_bytes(whole[: len(whole) // 2])
    silent = tmp_path / "silent.mp4"
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "color=size=32x32:duration=1", str(silent)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    text = tmp_path / "text.m4a"
    text.write_text("no sound")
    for path, message in ((cut, "ffmpeg cannot"), (silent, "has no sound"), (text, "ffmpeg cannot")):
        with pytest.raises(AudioFileError) as error:
            read_clip(path)
        assert str(error.value).startswith(f"{path}: {message}") and "\n" not in str(error.value)


def test_without_ffmpeg_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    path = tmp_path / "a.m4a"
    path.write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    with pytest.raises(
        AudioFileError, match=r"a.m4a: .* decoded by ffmpeg, which is not installed; install ffmpeg \(apt"
    ):
        read_clip(path)
    assert duration(path) == 0.0


def test_no_ending_is_read_in_two_ways() -> None:
    from hooks.sound_files import FORMATS

    assert not set(ENDINGS) & set(FORMATS)
