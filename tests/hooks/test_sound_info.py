"""How long a sound is: what is really in a file, and what is said where its header says otherwise."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hooks import AudioFileError, read_clip
from hooks.clip import audio_info, create_audio, read_blocks
from hooks.errors import SoundWarning
from tests.hard_sounds import RATE, case, cut_off, encoded, loud_first, tone, without_first_frame

pytestmark = pytest.mark.filterwarnings("ignore::hooks.errors.SoundWarning")
EXAMPLES = 20 * int(os.environ.get("AUDIOSTEER_FUZZ", "1"))
PLAIN = settings(deadline=None, max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture])


def put(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    return folder / name


class TestCases:
    def test_an_mp3_of_variable_rate_without_a_count_is_read_to_its_end(self, tmp_path: Path) -> None:
        path = case("vbr-mp3/loud-first.mp3", tmp_path)
        clip = read_clip(path)
        assert 6.0 <= clip.seconds <= 6.04
        # a loud second, and then five of a soft tone
        assert clip.waveform[0, : 44_100 // 2].square().mean().sqrt() > 0.2
        assert 0.01 < clip.waveform[0, -44_100:].square().mean().sqrt() < 0.02
        assert clip.notes == (
            f"its header says {soundfile.info(path).duration:.2f} s; the {clip.seconds:.2f} s that are there are read",
        )

    def test_all_links_of_a_chained_ogg_are_read(self, tmp_path: Path) -> None:
        path = case("chained-ogg/chained.ogg", tmp_path)
        with pytest.warns(SoundWarning, match="holds 2 sounds one behind the other; all of their 8.00 s"):
            clip = read_clip(path)
        assert clip.waveform.shape == (1, 192_000)
        assert [peak_hz(part) for part in clip.waveform[0].split(96_000)] == [300, 500]

    def test_a_wav_whose_sizes_were_never_filled_in_is_read(self, tmp_path: Path) -> None:
        clip = read_clip(case("wav-size-0/cut-off.wav", tmp_path))
        assert clip.waveform.shape == (1, 24_000) and peak_hz(clip.waveform[0]) == 220
        assert clip.notes == ("its header does not say how long it is; the 1.00 s that are there are read",)


def peak_hz(x_N: torch.Tensor, rate: int = RATE) -> int:
    return round(float(torch.fft.rfft(x_N).abs().argmax()) * rate / len(x_N))


class TestJoinedAndCut:
    def test_two_mp3s_one_behind_the_other(self, tmp_path: Path) -> None:
        first, second = (encoded(tone(3, hertz, 44_100), 44_100, "MP3") for hertz in (300, 500))
        clip = read_clip(put(tmp_path, "a.mp3", first + second))
        # the second one's first frame and its encoder's delay stay
        assert 6.0 <= clip.seconds < 6.1
        assert peak_hz(clip.waveform[0, :132_300], 44_100) == 300
        assert peak_hz(clip.waveform[0, -132_300:], 44_100) == 500
        # what stands at the start stays where it is
        alone = read_clip(put(tmp_path, "b.mp3", first)).waveform
        torch.testing.assert_close(clip.waveform[:, :130_000], alone[:, :130_000], atol=1e-4, rtol=0)

    @pytest.mark.parametrize(("rate", "channels", "told"), [(22_050, 1, "22050 Hz"), (44_100, 2, "stereo")])
    def test_two_mp3s_that_do_not_go_together_are_refused(
        self, rate: int, channels: int, told: str, tmp_path: Path
    ) -> None:
        other = np.tile(tone(1, 500, rate)[:, None], (1, channels)).squeeze()
        path = put(tmp_path, "a.mp3", encoded(tone(1, 300, 44_100), 44_100, "MP3") + encoded(other, rate, "MP3"))
        with pytest.raises(AudioFileError, match=f"a.mp3: turns from .* to {told} on the way; write it anew"):
            read_clip(path)

    def test_oggs_that_do_not_go_together_are_refused(self, tmp_path: Path) -> None:
        path = put(tmp_path, "a.ogg", encoded(tone(1), format="OGG") + encoded(tone(1, rate=48_000), 48_000, "OGG"))
        with pytest.raises(AudioFileError, match="holds 2 sounds .* of 24000 Hz with 1 channels, 48000 Hz"):
            audio_info(path)

    @pytest.mark.parametrize("claimed", [0, 1, 4_096])
    def test_a_flac_whose_count_is_too_small(self, claimed: int, tmp_path: Path) -> None:
        data = bytearray(encoded(tone(1), format="FLAC"))
        about = int.from_bytes(data[18:26], "big")
        data[18:26] = (about >> 36 << 36 | claimed).to_bytes(8, "big")
        clip = read_clip(put(tmp_path, "a.flac", bytes(data)))
        assert np.array_equal(
            clip.waveform[0].numpy(),
            soundfile.read(put(tmp_path, "b.flac", encoded(tone(1), format="FLAC")), dtype="float32")[0],
        )
        said = f"says {claimed / RATE:.2f} s" if claimed else "does not say how long it is"
        assert clip.notes == (f"its header {said}; the 1.00 s that are there are read",)

    @pytest.mark.parametrize(
        ("format", "name"),
        [("WAV", "a.wav"), ("AIFF", "a.aiff"), ("AU", "a.au"), ("CAF", "a.caf"), ("W64", "a.w64"), ("RF64", "a.rf64")],
    )
    def test_a_file_that_was_cut_off_says_so(self, format: str, name: str, tmp_path: Path) -> None:
        data = encoded(tone(1), format=format)
        path = put(tmp_path, name, data[: len(data) - 40_000])
        with pytest.raises(AudioFileError, match=rf"{name}: truncated, \d+ of (24000 samples|48004 bytes of sound)"):
            read_clip(path)

    def test_an_ogg_that_was_cut_off_says_so(self, tmp_path: Path) -> None:
        data = encoded(np.random.default_rng(0).uniform(-0.5, 0.5, 4 * RATE), format="OGG")
        clip = read_clip(put(tmp_path, "a.ogg", data[: len(data) // 2]))
        assert 0 < clip.seconds < 4 and "it was cut off" in clip.notes[0]

    @pytest.mark.parametrize(("format", "name", "at"), [("AIFF", "a.aiff", 22), ("AU", "a.au", 8)])
    def test_sizes_that_were_never_filled_in(self, format: str, name: str, at: int, tmp_path: Path) -> None:
        data = bytearray(encoded(tone(1), format=format))
        whole = bytes(data)
        data[at : at + 4] = bytes(4)
        if format == "AIFF":
            start = data.find(b"SSND") + 4
            data[start : start + 4] = (8).to_bytes(4, "big")
        clip = read_clip(put(tmp_path, name, bytes(data)))
        assert torch.equal(clip.waveform, read_clip(put(tmp_path, f"b{name}", whole)).waveform)
        assert "does not say how long it is" in clip.notes[0]

    def test_a_wav_with_another_one_behind_it(self, tmp_path: Path) -> None:
        data = encoded(tone(1))
        clip = read_clip(put(tmp_path, "a.wav", data + data))
        assert clip.seconds == 1.0 and clip.notes == (
            f"{len(data)} bytes behind the end that its header gives are not read",
        )

    def test_a_wav_of_more_than_4_gib_whose_size_ran_over(self, tmp_path: Path) -> None:
        """A sparse file: the sizes in its header are those modulo 2^32, as many programs write them."""
        frames = 2**31 + 480
        size = 2 * frames
        header = struct.pack(
            "<4sI4s4sIHHIIHH", b"RIFF", (36 + size) % 2**32, b"WAVE", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16
        )
        path = tmp_path / "a.wav"
        with path.open("wb") as file:
            file.write(header + struct.pack("<4sI", b"data", size % 2**32))
            file.seek(44 + size - 4)
            file.write(struct.pack("<hh", 16_384, -16_384))
        info = audio_info(path)
        assert info.frames == frames and "its header says 0.02 s" in info.notes[0]
        (end_1N,) = read_blocks(info, 4, start=frames - 3, end=frames)
        assert end_1N.tolist() == [[0.0, 0.5, -0.5]]


def test_what_macos_leaves_beside_an_mp3_does_no_harm(tmp_path: Path) -> None:
    path = put(tmp_path, "a.mp3", encoded(tone(1), format="MP3"))
    put(tmp_path, "._a.mp3", bytes.fromhex("0005160700020000") + b"Mac OS X" + bytes(4_000))
    with pytest.raises(soundfile.SoundFileError):
        soundfile.info(path)
    assert read_clip(path).waveform.shape == (1, RATE)


def test_ordinary_files_are_decoded_as_they_are(tmp_path: Path) -> None:
    for format in ("WAV", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF", "W64", "RF64"):
        info = audio_info(put(tmp_path, f"a.{format.lower()}", encoded(tone(1), format=format)))
        assert (info.frames, info.parts, info.notes) == (RATE, (), ()), format


FORMATS = [
    ("WAV", "PCM_16"),
    ("WAV", "FLOAT"),
    ("WAV", "PCM_24"),
    ("FLAC", "PCM_16"),
    ("AIFF", "PCM_16"),
    ("AU", "PCM_16"),
    ("CAF", "PCM_16"),
    ("W64", "PCM_16"),
    ("RF64", "PCM_16"),
]


@PLAIN
@given(
    kind=st.sampled_from(FORMATS),
    rate=st.sampled_from([8_000, 16_000, 22_050, 44_100, 48_000, 96_000]),
    channels=st.integers(1, 8),
    frames=st.integers(1, 20_000),
    damage=st.sampled_from(["none", "cut", "unknown", "behind"]),
    seed=st.integers(0, 2**16),
)
def test_what_is_in_a_file_comes_out_whole_or_not_at_all(
    kind: tuple[str, str], rate: int, channels: int, frames: int, damage: str, seed: int, tmp_path: Path
) -> None:
    """Level, channels and order survive, whatever the header says; what was cut off is an error."""
    rng = np.random.default_rng(seed)
    levels = 0.5 ** np.arange(channels)
    samples = (rng.integers(-(2**14), 2**14, (frames, channels)) * levels).round() / 2**15
    path = tmp_path / "sound"
    soundfile.write(path, samples, rate, kind[1], format=kind[0])
    data = path.read_bytes()
    width = {"PCM_16": 2, "PCM_24": 3, "FLOAT": 4}[kind[1]] * channels
    # what lies behind the sound is not missed
    whole = len(data) - (frames * width % 2 if kind[0] in ("WAV", "AIFF") else 0)
    if damage == "cut":
        data = data[: -int(rng.integers(1, max(2, min(frames * width // 2, len(data) // 2))))]
    elif damage == "unknown":
        data = with_unknown_length(kind[0], data)
    elif damage == "behind" and kind[0] in ("WAV", "FLAC"):
        data += b"TAG" + bytes(125)
    path.write_bytes(data)
    want = torch.tensor(samples.T, dtype=torch.float32)
    if damage == "cut" and len(data) < whole:
        with pytest.raises(AudioFileError):
            read_clip(path)
        return
    got = read_clip(path)
    assert got.sample_rate == rate and torch.equal(got.waveform, want)


def with_unknown_length(format: str, data: bytes) -> bytes:
    """As a recorder or a pipe leaves it."""
    if format == "WAV":
        at = data.find(b"data") + 4
        return data[:4] + bytes(4) + data[8:at] + b"\xff" * 4 + data[at + 4 :]
    if format == "FLAC":
        about = int.from_bytes(data[18:26], "big") >> 36 << 36
        return data[:18] + about.to_bytes(8, "big") + data[26:]
    if format == "AU":
        return data[:8] + b"\xff" * 4 + data[12:]
    return data


@PLAIN
@given(
    rates=st.lists(st.sampled_from([32, 64, 128, 320]), min_size=1, max_size=4),
    rate=st.sampled_from([22_050, 44_100, 48_000]),
    channels=st.integers(1, 2),
)
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg counts the samples")
def test_mp3s_of_any_bit_rates_are_as_long_as_ffmpeg_finds_them(
    rates: list[int], rate: int, channels: int, tmp_path: Path
) -> None:
    """Stretches of noise and of a tone, so that a variable bit rate varies; the frame that counts is missing."""
    rng = np.random.default_rng(len(rates))
    parts = [0.3 * rng.standard_normal(rate) if kbit > 64 else tone(1, kbit * 10, rate, 0.01) for kbit in rates]
    sound = np.tile(np.concatenate(parts)[:, None], (1, channels)).squeeze()
    data = encoded(sound, rate, "MP3", compression_level=0.5, bitrate_mode="VARIABLE")
    path = put(tmp_path, "a.mp3", without_frame(data))
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-f", "s16le", "-"]
    frames = len(subprocess.run(command, capture_output=True, check=True).stdout) // 2 // channels
    # 529 is the delay of a decoder, which some take off
    assert read_clip(path).waveform.shape[1] in (frames, frames - 529)


@PLAIN
@given(
    lengths=st.lists(st.integers(1, 30_000), min_size=1, max_size=4),
    channels=st.integers(1, 2),
    subtype=st.sampled_from(["VORBIS", "OPUS"]),
)
def test_all_links_of_an_ogg_come_out_in_order(lengths: list[int], channels: int, subtype: str, tmp_path: Path) -> None:
    data, links = b"", []
    for number, frames in enumerate(lengths):
        sound_N = tone(frames / RATE, 200 * (number + 1))[:frames]
        samples = sound_N if channels == 1 else np.stack([sound_N] * channels, axis=1)
        links.append(encoded(samples, format="OGG", subtype=subtype))
        data += links[-1]
    clip = read_clip(put(tmp_path, "a.ogg", data))
    alone = [read_clip(put(tmp_path, "b.ogg", link)).waveform for link in links]
    assert torch.equal(clip.waveform, torch.cat(alone, dim=1))
    assert clip.waveform.shape == (channels, sum(lengths))
    # from anywhere in it
    start = sum(lengths) // 2
    rest = torch.cat(list(read_blocks(audio_info(tmp_path / "a.ogg"), 1_000, start=start)), dim=1)
    assert rest.shape[1] == sum(lengths) - start
    if subtype == "VORBIS":  # Opus starts anew where it is entered
        torch.testing.assert_close(rest, clip.waveform[:, start:], atol=1e-3, rtol=0)


@PLAIN
@given(
    kind=st.sampled_from(
        [
            ("WAV", "PCM_16"),
            ("WAV", "FLOAT"),
            ("WAV", "PCM_U8"),
            ("FLAC", "PCM_24"),
            ("AIFF", "PCM_16"),
            ("AU", "PCM_24"),
            ("CAF", "FLOAT"),
            ("W64", "PCM_32"),
            ("RF64", "PCM_16"),
            ("OGG", "VORBIS"),
        ]
    ),
    channels=st.sampled_from([1, 2, 6]),
    rate=st.sampled_from([8_000, 44_100, 48_000]),
    frames=st.integers(1_000, 30_000),
    seed=st.integers(0, 99),
    told=st.booleans(),
)
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg reads what was written")
def test_ffmpeg_finds_in_a_file_what_was_written_to_it(
    kind: tuple[str, str], channels: int, rate: int, frames: int, seed: int, told: bool, tmp_path: Path
) -> None:
    generator = torch.Generator().manual_seed(seed)
    samples = (0.2 * torch.randn(channels, frames, generator=generator)).clamp(-1, 1)
    samples *= 0.7 ** torch.arange(channels)[:, None]
    path = tmp_path / "a.sound"
    with create_audio(path, rate, channels, *kind, force=True, frames=frames if told else None) as writer:
        for piece in samples.split(7_000, dim=1):
            writer.write(piece)
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-f", "f32le", "-c:a", "pcm_f32le", "-"]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    back = torch.frombuffer(bytearray(data), dtype=torch.float32).reshape(-1, channels).T
    if kind[1] == "VORBIS":  # its order of 6 channels is another one, and ffmpeg drops the end of the last block
        assert abs(back.shape[1] - frames) <= 2_048
        return
    torch.testing.assert_close(back, samples, atol=1.1 * {"PCM_U8": 2**-7}.get(kind[1], 2**-15), rtol=0)


def without_frame(data: bytes) -> bytes:
    from hooks.containers.mpeg import Head

    head = Head(int.from_bytes(data[:4], "big"))
    return data[head.sizes()[head.word >> 12 & 15] + (head.word >> 9 & 1) :]


def test_the_cases_are_made_as_they_are_kept(tmp_path: Path) -> None:
    """Where `../shared/cases` is not there, tests make the same."""
    assert cut_off() == case("wav-size-0/cut-off.wav", tmp_path).read_bytes()
    assert len(loud_first()) == len(case("vbr-mp3/loud-first.mp3", tmp_path).read_bytes())
    assert without_first_frame(b"\xff\xfb\x90\x00" + bytes(500)) == bytes(504 - 417)


class TestTroublesOfOthers:
    """What the trackers of libsndfile, soundfile and demucs have of reading."""

    @pytest.fixture
    def plain_mp3(self) -> bytes:
        """A second without the frame that counts (libsndfile #1086)."""
        return without_frame(encoded(tone(1, 300, 44_100), 44_100, "MP3"))

    @pytest.mark.parametrize("behind", ["APE tag", "zeros", "ID3v1"])
    def test_what_lies_behind_an_mp3_is_no_sound(self, behind: str, plain_mp3: bytes, tmp_path: Path) -> None:
        ape = b"APETAGEX" + struct.pack("<IIII", 2_000, 50_000, 1, 0) + bytes(8 + 50_000)
        data = {"APE tag": ape, "zeros": bytes(200_000), "ID3v1": b"TAG" + bytes(125)}[behind]
        alone = read_clip(put(tmp_path, "a.mp3", plain_mp3)).waveform
        assert torch.equal(read_clip(put(tmp_path, "b.mp3", plain_mp3 + data)).waveform, alone)

    @pytest.mark.parametrize("before", ["zeros", "cover"])
    def test_what_lies_before_an_mp3_is_no_sound(self, before: str, plain_mp3: bytes, tmp_path: Path) -> None:
        cover = b"ID3\x03\0\0" + bytes([0, 16, 0, 0]) + bytes(16 << 14)
        data = {"zeros": bytes(3_000), "cover": cover}[before]
        alone = read_clip(put(tmp_path, "a.mp3", plain_mp3)).waveform
        assert torch.equal(read_clip(put(tmp_path, "b.mp3", data + plain_mp3)).waveform, alone)

    def test_a_file_without_a_header_is_not_guessed_by_its_ending(self, tmp_path: Path) -> None:
        path = put(tmp_path, "a.au", b"no header" * 99)
        assert soundfile.info(path).format == "RAW"
        with pytest.raises(AudioFileError, match=r"a.au: not a sound file that can be read \(it has no header\)"):
            read_clip(path)

    @pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
    @pytest.mark.parametrize(("name", "codec"), [("a.mp2", "mp2"), ("a.wav", "libmp3lame"), ("a.oga", "flac")])
    def test_what_libsndfile_decodes_in_part(self, name: str, codec: str, tmp_path: Path) -> None:
        put(tmp_path, "source.flac", encoded(tone(1, 300, 44_100), 44_100, "FLAC"))
        command = ["ffmpeg", "-v", "error", "-i", str(tmp_path / "source.flac"), "-c:a", codec, str(tmp_path / name)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        clip = read_clip(tmp_path / name)
        assert 1.0 <= clip.seconds < 1.06 and peak_hz(clip.waveform[0, 2_000:42_000], 44_100) == 300
