from __future__ import annotations

import io
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

from hooks import AudioFileError, Clip, read_clip, write_clip
from hooks.clip import AudioInfo, as_clip, audio_info, create_audio, read_blocks
from hooks.sound_files import kind_of


def noise(channels: int = 2, samples: int = 2_000) -> Tensor:
    return 0.3 * torch.randn(channels, samples).clamp(-3, 3)


def one_line(error: pytest.ExceptionInfo[AudioFileError], *parts: str) -> None:
    text = str(error.value)
    assert "\n" not in text
    for part in parts:
        assert part in text


class TestClip:
    def test_one_axis_is_mono(self) -> None:
        clip = Clip(torch.zeros(8_000, dtype=torch.float64), 16_000)
        assert clip.waveform.shape == (1, 8_000)
        assert clip.waveform.dtype == torch.float32
        assert clip.seconds == 0.5

    @pytest.mark.parametrize(
        ("waveform", "message"),
        [
            (torch.zeros(1, 2, 3), "not [1, 2, 3]"),
            (torch.zeros(2, 0), "has no samples"),
            (torch.tensor([0.0, float("nan"), float("inf")]), "2 samples are not finite"),
            (torch.tensor([0.0, -1e30]), "samples up to 1e+30"),
        ],
    )
    def test_unusable_samples(self, waveform: Tensor, message: str) -> None:
        with pytest.raises(AudioFileError) as error:
            Clip(waveform, 16_000)
        one_line(error, message)

    @pytest.mark.parametrize(("there", "back"), [(16_000, 24_000), (44_100, 24_000), (48_000, 8_000)])
    def test_resampling_keeps_a_tone_and_its_length(self, there: int, back: int) -> None:
        def tone(rate: int) -> Tensor:
            return torch.sin(2 * torch.pi * 440 * torch.arange(rate, dtype=torch.float64) / rate)[None].float()

        clip = Clip(tone(there), there).resampled(back)
        assert (clip.sample_rate, clip.waveform.shape) == (back, (1, back))
        middle = slice(back // 10, -back // 10)
        # ten times the rounding of float32 sums over the resampler's filter
        torch.testing.assert_close(clip.waveform[:, middle], tone(back)[:, middle], atol=5e-6, rtol=0)

    def test_resampling_to_the_same_rate_changes_nothing(self) -> None:
        clip = Clip(noise(), 16_000)
        assert clip.resampled(16_000) is clip

    def test_mixing(self) -> None:
        clip = Clip(noise(3), 16_000)
        assert clip.mixed(3) is clip
        assert torch.equal(clip.mixed(1).waveform, clip.waveform.mean(0, keepdim=True))
        copied = clip.mixed(1).mixed(2).waveform
        assert torch.equal(copied[0], copied[1])
        with pytest.raises(AudioFileError, match="cannot turn 3 channels into 2"):
            clip.mixed(2)

    def test_as_clip(self, tmp_path: Path) -> None:
        clip = Clip(noise(), 16_000)
        write_clip(clip, tmp_path / "a.wav", "FLOAT")
        assert as_clip(clip) is clip
        for name in (tmp_path / "a.wav", str(tmp_path / "a.wav")):
            assert torch.equal(as_clip(name).waveform, clip.waveform)
        assert torch.equal(as_clip(clip.waveform.numpy(), 16_000).waveform, clip.waveform)
        with pytest.raises(AudioFileError, match="without a sampling rate"):
            as_clip(clip.waveform)

    def test_as_clip_of_bytes_open_files_and_pairs(self, tmp_path: Path) -> None:
        clip = Clip(noise(2), 16_000)
        path = tmp_path / "a.wav"
        write_clip(clip, path, "FLOAT")
        data = path.read_bytes()
        with path.open("rb") as file:
            opened = as_clip(file)
        assert opened.name == str(path)
        for same in (opened, as_clip(data), as_clip(io.BytesIO(data)), as_clip((clip.waveform, 16_000))):
            assert torch.equal(same.waveform, clip.waveform) and same.sample_rate == 16_000
        assert torch.equal(as_clip((clip.waveform[0].double().numpy(), 16_000)).waveform, clip.waveform[:1])

    def test_what_is_no_sound(self, tmp_path: Path) -> None:
        (tmp_path / "a.txt").write_text("no sound")
        bad = {
            "a sound of 4 bytes: not a sound file": b"RIFF",
            "opened as text": (tmp_path / "a.txt").open(),
            r"\(samples .*, rate in Hz\)": (16_000, noise()),
            "or integers of 8, 16 or 32 bits, not torch.int64": (torch.zeros(9, dtype=torch.int64), 16_000),
            "sampling rate 16 Hz is outside": (noise(), 16),
            "not list": [0.1, 0.2],
        }
        for message, source in bad.items():
            with pytest.raises(AudioFileError, match=message):
                as_clip(source, 16_000)  # type: ignore[arg-type]


class TestRoundTrip:
    @pytest.mark.parametrize(
        ("name", "subtype", "bits"),
        [
            ("a.wav", "PCM_U8", 8),
            ("a.wav", "PCM_16", 16),
            ("a.wav", "PCM_24", 24),
            ("a.wav", "FLOAT", None),
            ("a.flac", "PCM_16", 16),
            ("a.flac", "PCM_24", 24),
            ("a.aiff", "PCM_24", 24),
        ],
    )
    @pytest.mark.parametrize(("channels", "sample_rate"), [(1, 44_100), (2, 48_000), (6, 24_000)])
    def test_what_the_format_can_hold_comes_back_bit_for_bit(
        self, name: str, subtype: str, bits: int | None, channels: int, sample_rate: int, tmp_path: Path
    ) -> None:
        waveform = noise(channels)
        if bits is not None:
            waveform = (waveform * 2 ** (bits - 1)).round() / 2 ** (bits - 1)
            waveform[:, :2] = torch.tensor([-1.0, 1 - 2.0 ** (1 - bits)])
        write_clip(Clip(waveform, sample_rate), tmp_path / name, subtype)
        back = read_clip(tmp_path / name)
        assert torch.equal(back.waveform, waveform)
        assert (back.sample_rate, back.name) == (sample_rate, str(tmp_path / name))
        info = audio_info(tmp_path / name)
        assert (info.channels, info.frames, info.subtype) == (channels, 2_000, subtype)
        assert info.seconds == 2_000 / sample_rate

    def test_a_lossy_format_keeps_kind_and_length(self, tmp_path: Path) -> None:
        tone = 0.3 * torch.sin(2 * torch.pi * 440 * torch.arange(24_000) / 24_000)[None]
        write_clip(Clip(tone, 24_000), tmp_path / "a.ogg")
        info = audio_info(tmp_path / "a.ogg")
        assert (info.format, info.subtype, info.frames) == ("OGG", "VORBIS", 24_000)
        # Vorbis at its default quality leaves an error well below the tone
        assert (read_clip(tmp_path / "a.ogg").waveform - tone).square().mean() < 1e-3 * tone.square().mean()

    def test_a_long_vorbis_file_in_one_block_does_not_fill_the_stack(self, tmp_path: Path) -> None:
        noise = Clip(0.1 * torch.randn(1, 400_000), 48_000)
        usual = threading.stack_size(1_000_000)  # bytes; the block has 1.6 million
        try:
            thread = threading.Thread(target=write_clip, args=(noise, tmp_path / "a.ogg"))
            thread.start()
        finally:
            threading.stack_size(usual)
        thread.join()
        assert audio_info(tmp_path / "a.ogg").frames == 400_000

    def test_blocks_are_the_file_piece_by_piece(self, tmp_path: Path) -> None:
        write_clip(Clip(noise(), 16_000), tmp_path / "a.wav")
        blocks = list(read_blocks(audio_info(tmp_path / "a.wav"), 300))
        assert [block.shape[1] for block in blocks] == [300] * 6 + [200]
        assert torch.equal(torch.cat(blocks, 1), read_clip(tmp_path / "a.wav").waveform)

    def test_integer_formats_are_clipped_and_it_is_counted(self, tmp_path: Path) -> None:
        waveform = torch.tensor([[0.5, 1.5, -2.0, 0.25]])
        with create_audio(tmp_path / "a.wav", 16_000, 1, subtype="PCM_16") as writer:
            writer.write(waveform)
        assert writer.clipped == 2
        assert read_clip(tmp_path / "a.wav").waveform.tolist() == [[0.5, 1 - 2**-15, -1.0, 0.25]]
        with create_audio(tmp_path / "b.wav", 16_000, 1, subtype="FLOAT") as writer:
            writer.write(waveform)
        assert writer.clipped == 0
        assert torch.equal(read_clip(tmp_path / "b.wav").waveform, waveform)

    def test_new_files_have_the_permissions_of_any_other(self, tmp_path: Path) -> None:
        write_clip(Clip(noise(), 16_000), tmp_path / "a.wav")
        (tmp_path / "other").touch()
        assert stat.S_IMODE((tmp_path / "a.wav").stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)

    def test_a_real_recording(self, recordings: Path, tmp_path: Path) -> None:
        clip = read_clip(next(iter(sorted((recordings / "digits").rglob("*.flac")))))
        write_clip(clip, tmp_path / "a.flac")
        assert torch.equal(read_clip(tmp_path / "a.flac").waveform, clip.waveform)


def text_file(folder: Path) -> Path:
    (folder / "a.wav").write_text("this is not a sound\n" * 100)
    return folder / "a.wav"


def truncated_flac(folder: Path) -> Path:
    soundfile.write(folder / "whole.flac", noise(1, 48_000)[0].numpy(), 24_000)
    content = (folder / "whole.flac").read_bytes()
    (folder / "a.flac").write_bytes(content[: len(content) // 2])
    return folder / "a.flac"


def empty_file(folder: Path) -> Path:
    (folder / "a.wav").touch()
    return folder / "a.wav"


def written(**fields: object) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        settings = {"data": np.zeros(100), "samplerate": 16_000, "subtype": "FLOAT", **fields}
        soundfile.write(folder / "a.wav", **settings)
        return folder / "a.wav"

    return make


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "a.wav", "no such file"),
        (lambda folder: folder, "is a folder"),
        (text_file, "not a sound file"),
        (truncated_flac, "a.flac: "),
        (empty_file, "not a sound file"),
        (written(data=np.zeros(0)), "has no samples"),
        (written(data=np.array([0.0, np.nan, 0.1])), "1 samples are not finite"),
        (written(samplerate=1_000), "sampling rate 1000 Hz is outside 4000 to"),
        (written(data=np.zeros((100, 32))), "32 channels, at most 8"),
    ],
    ids=["missing", "folder", "text", "truncated", "empty", "zero samples", "NaN", "1 kHz", "32 channels"],
)
def test_files_that_cannot_be_used(make: Callable[[Path], Path], message: str, tmp_path: Path) -> None:
    path = make(tmp_path)
    with pytest.raises(AudioFileError) as error:
        read_clip(path)
    one_line(error, str(path), message)


@pytest.mark.parametrize("promised", [2**24, 2**36 - 1])
def test_a_header_that_promises_too_much_gets_no_memory(promised: int, tmp_path: Path) -> None:
    """FLAC writes its length in 36 bits."""
    path = tmp_path / "a.flac"
    soundfile.write(path, np.zeros((100, 1)), 16_000)
    data = bytearray(path.read_bytes())
    about = int.from_bytes(data[18:26], "big")
    data[18:26] = (about >> 36 << 36 | promised).to_bytes(8, "big")
    path.write_bytes(data)
    with pytest.raises(AudioFileError) as error:
        read_clip(path)
    one_line(error, str(path), "its header does not say how long it is, or more than it can hold")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.wav")
    with pytest.raises(AudioFileError, match="no regular file"):
        audio_info(tmp_path / "a.wav")


def test_a_truncated_flac_says_where(tmp_path: Path) -> None:
    with pytest.raises(AudioFileError, match=r"damaged after|truncated, \d+ of 48000"):
        read_clip(truncated_flac(tmp_path))


class TestWriting:
    """Whatever goes wrong, the folder is as it was before."""

    def test_an_existing_output_is_kept(self, tmp_path: Path) -> None:
        path = tmp_path / "a.wav"
        path.write_text("precious")
        with pytest.raises(AudioFileError) as error:
            write_clip(Clip(noise(), 16_000), path)
        one_line(error, "exists already; use --force")
        assert path.read_text() == "precious"
        write_clip(Clip(noise(), 16_000), path, force=True)
        assert audio_info(path).frames == 2_000

    @pytest.mark.parametrize("exists", [False, True])
    @pytest.mark.parametrize("error", [RuntimeError, ValueError, OSError, KeyboardInterrupt])
    def test_a_failure_of_the_caller_is_the_callers(
        self, exists: bool, error: type[BaseException], tmp_path: Path
    ) -> None:
        path = tmp_path / "a.wav"
        if exists:
            path.write_text("precious")
        with pytest.raises(error, match="mine"), create_audio(path, 16_000, 2, force=True) as writer:
            writer.write(noise())
            raise error("mine")
        assert [one.name for one in tmp_path.iterdir()] == (["a.wav"] if exists else [])
        assert not exists or path.read_text() == "precious"

    def test_nothing_is_seen_before_the_end(self, tmp_path: Path) -> None:
        with create_audio(tmp_path / "a.wav", 16_000, 2) as writer:
            writer.write(noise())
            assert not (tmp_path / "a.wav").exists()
        assert [one.name for one in tmp_path.iterdir()] == ["a.wav"]

    @pytest.mark.parametrize(
        ("name", "options", "message"),
        [
            ("a.xyz", {}, "XYZ files cannot be written; use .wav, .flac or .ogg"),
            ("a.flac", {"subtype": "FLOAT"}, "FLAC files cannot hold FLOAT samples"),
            ("a.flac", {"channels": 9}, "cannot hold 9 channels at 16000 Hz as FLAC"),
            ("no/such/a.wav", {}, "no such folder"),
            ("folder", {}, "is a folder, not a file name"),
            ("n" * 300 + ".wav", {}, "File name too long"),
        ],
    )
    def test_targets_that_cannot_be_written(
        self, name: str, options: dict[str, object], message: str, tmp_path: Path
    ) -> None:
        (tmp_path / "folder").mkdir()
        channels = options.pop("channels", 2)
        with (
            pytest.raises(AudioFileError) as error,
            create_audio(tmp_path / name, 16_000, channels, **options),  # type: ignore[arg-type]
        ):
            pass
        one_line(error, message)
        assert [one.name for one in tmp_path.iterdir()] == ["folder"]

    def test_samples_that_are_not_finite_are_not_written(self, tmp_path: Path) -> None:
        with (
            pytest.raises(AudioFileError, match="samples that are not finite"),
            create_audio(tmp_path / "a.wav", 16_000, 1) as writer,
        ):
            writer.write(torch.tensor([[0.0, float("nan")]]))
        assert list(tmp_path.iterdir()) == []

    def test_a_read_only_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = tmp_path / "locked"
        folder.mkdir(mode=0o500)
        if os.geteuid() == 0:  # root may write anywhere: ask as the others would be answered
            monkeypatch.setattr("os.access", lambda path, mode: Path(path) != folder)
        with pytest.raises(AudioFileError) as error:
            write_clip(Clip(noise(), 16_000), folder / "a.wav")
        one_line(error, "locked: no permission to write there")
        assert list(folder.iterdir()) == []

    def test_a_full_disk(self, tmp_path: Path) -> None:
        """A process that may write 20 kB to a file stands for a disk that has no more."""
        program = """
import resource, sys, torch
from hooks import AudioFileError
from hooks.clip import create_audio
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
# some fail at once, some in a later block, the short ones when they are closed
for name, subtype, samples in (
    ("a.wav", "PCM_16", 100_000),
    ("a.wav", "FLOAT", 6_000),
    ("a.flac", "PCM_24", 100_000),
    ("a.flac", "PCM_16", 14_000),
    ("a.ogg", "VORBIS", 200_000),
):
    try:
        with create_audio(f"{sys.argv[1]}/{name}", 24_000, 1, subtype=subtype) as writer:
            for block in (2 * torch.rand(1, samples) - 1).split(7_000, dim=1):
                writer.write(block)
        print("written")
    except AudioFileError as error:
        print(error)
"""
        command = [sys.executable, "-c", program, str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
        names = ["a.wav", "a.wav", "a.flac", "a.flac", "a.ogg"]
        assert done.stdout.splitlines() == [f"{tmp_path / n}: could not be written (File too large)" for n in names]
        assert list(tmp_path.iterdir()) == []


def test_a_sample_dump_is_refused_before_libsndfile_prints(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(480), 8000, "PCM_16", format="SDS")
    with pytest.raises(AudioFileError, match="MIDI sample dump"):
        read_clip(path)


def test_clips_are_compared_by_their_samples() -> None:
    clip = Clip(torch.ones(1, 9), 8_000, "a")
    assert clip == Clip(torch.ones(9), 8_000, "a") != Clip(torch.zeros(9), 8_000, "a")
    assert clip != Clip(torch.ones(9), 16_000, "a")
    assert clip in [Clip(torch.zeros(3), 8_000), clip]


class TestMoreThan4Gib:
    """With a limit of 128 kB in the place of 4 GiB."""

    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("hooks.sound_writing.NARROW_BYTES", 2**17)

    @pytest.mark.parametrize("told", [True, False])
    def test_a_wav_becomes_an_rf64_where_it_would_not_fit(self, told: bool, tmp_path: Path) -> None:
        whole = 0.5 * torch.rand(2, 40_000)
        with create_audio(tmp_path / "a.wav", 16_000, 2, subtype="FLOAT", frames=40_000 if told else None) as writer:
            for piece in whole.split(9_000, dim=1):
                writer.write(piece)
        # without a limit that is small, what was not told becomes a WAV again
        assert audio_info(tmp_path / "a.wav").format == ("RF64" if told else "WAVEX")
        assert torch.equal(read_clip(tmp_path / "a.wav").waveform, whole)

    def test_short_ones_are_as_ever(self, tmp_path: Path) -> None:
        write_clip(Clip(noise(), 16_000), tmp_path / "a.wav")
        soundfile.write(tmp_path / "b.wav", read_clip(tmp_path / "a.wav").waveform.T.numpy(), 16_000)
        assert (tmp_path / "a.wav").read_bytes() == (tmp_path / "b.wav").read_bytes()

    @pytest.mark.parametrize("name", ["a.aiff", "a.au"])
    def test_others_are_refused_before_any_work(self, name: str, tmp_path: Path) -> None:
        message = f"{name}: {name[2:].upper()} files hold at most 4 GiB, and this one would be longer; use .flac, .w64"
        with pytest.raises(AudioFileError, match=message), create_audio(tmp_path / name, 16_000, 2, frames=2**16):
            raise AssertionError("opened")
        with pytest.raises(AudioFileError, match=message), create_audio(tmp_path / name, 16_000, 2) as writer:
            for _ in range(9):
                writer.write(torch.zeros(2, 8_000))
        assert list(tmp_path.iterdir()) == []
        source = AudioInfo(tmp_path / "long.flac", 16_000, 2, 2**16, "FLAC", "PCM_16")
        with pytest.raises(AudioFileError, match=message):
            kind_of(source, tmp_path / name)
        assert kind_of(source, tmp_path / "a.wav") == ("WAV", "PCM_16")


def test_a_file_that_does_not_hold_what_was_written_does_not_appear(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = soundfile.SoundFile.write
    monkeypatch.setattr(soundfile.SoundFile, "write", lambda file, data: write(file, data[:-1]))
    with pytest.raises(AudioFileError, match="2000 samples were written, and its header says 1999; it was removed"):
        write_clip(Clip(noise(), 16_000), tmp_path / "a.wav")
    assert list(tmp_path.iterdir()) == []
