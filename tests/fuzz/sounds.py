"""Malformed sound files, through `audio_info`, `read_clip` and `Editor.edit_file`."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile

from hooks.clip import audio_info, read_clip
from hooks.errors import AudioSteerError
from steer.editing.editor import Editor
from steer.recipe import Recipe
from tests.fuzz.child import Case, Wrong
from tests.fuzz.mutate import mutated
from tests.fuzz.places import bad_paths
from tests.fuzz.tiny import RATE, codec_folder, sae_folder

ENDINGS = {
    "OGG": "ogg",
    "AIFF": "aiff",
    "AU": "au",
    "CAF": "caf",
    "FLAC": "flac",
    "MP3": "mp3",
    "W64": "w64",
    "WAV": "wav",
}


COMMON = ("PCM_16", "FLOAT", "VORBIS", "OPUS", "MPEG_LAYER_III")


def tiny_editor(folder: Path) -> Editor:
    """A codec that takes no time, with an edit that changes every sound."""
    about = {"model": str(codec_folder(folder / "codec")), "saes": {"latent": str(sae_folder(folder / "sae"))}}
    return Editor(Recipe.build({**about, "edits": [{"clamp": {0: 1.0}}]}), pitch=False)


def seeds() -> dict[str, bytes]:
    """A short sound in every format and subtype that can be written: {"format/subtype": bytes}."""
    rng = np.random.default_rng(0)
    found = {}
    # not SD2, of which libsndfile puts a part into a file "._" of the present folder
    for format in sorted(soundfile.available_formats().keys() - {"SD2"}):
        for subtype in sorted(soundfile.available_subtypes(format)):
            for channels in (1, 2):
                sound = 0.1 * rng.standard_normal((480, channels))
                file = io.BytesIO()
                try:
                    soundfile.write(file, sound, RATE, subtype, format=format)
                except (soundfile.SoundFileError, ValueError):
                    continue  # not at this rate or with these channels
                found[f"{format}/{subtype}/{channels}"] = file.getvalue()
    return found


# --- by hand ---


def wav(
    rate: int = RATE,
    channels: int = 1,
    bits: int = 16,
    tag: int = 1,
    size: int | None = None,
    body: bytes = bytes(960),
    align: int | None = None,
    fmt: int = 16,
) -> bytes:
    size = len(body) if size is None else size
    align = channels * bits // 8 if align is None else align
    head = struct.pack(
        "<4sI4s4sIHHIIHH",
        b"RIFF",
        (36 + size) % 2**32,
        b"WAVE",
        b"fmt ",
        fmt,
        tag,
        channels,
        rate,
        rate * align % 2**32,
        align % 2**16,
        bits,
    )
    return head + struct.pack("<4sI", b"data", size) + body


def au(size: int = 960, encoding: int = 3, rate: int = RATE, channels: int = 1, offset: int = 24) -> bytes:
    return struct.pack(">4sIIIII", b".snd", offset, size, encoding, rate, channels) + bytes(960)


def flac(frames: int, sound: bytes, rate: int = RATE, channels: int = 1, bits: int = 16) -> bytes:
    """A real FLAC file that says something else of itself: up to 2^36 samples."""
    packed = (rate << 44) | ((channels - 1) << 41) | ((bits - 1) << 36) | frames
    return sound[:18] + packed.to_bytes(8, "big") + sound[26:]


def aiff(frames: int = 480, channels: int = 1, bits: int = 16, rate: bytes = b"\x40\x0b\xfa" + bytes(7)) -> bytes:
    comm = struct.pack(">4sIhIh", b"COMM", 18, channels, frames, bits) + rate
    ssnd = struct.pack(">4sIII", b"SSND", 968, 0, 0) + bytes(960)
    return struct.pack(">4sI4s", b"FORM", 4 + len(comm) + len(ssnd), b"AIFF") + comm + ssnd


def by_hand(known: dict[str, bytes]) -> dict[str, bytes]:
    """{name with the ending: bytes}: headers that lie, and what is not a sound at all."""
    rng = np.random.default_rng(1)
    huge = (0, 1, 3, 2**31 - 1, 2**31, 2**32 - 1)
    found = {
        "empty.wav": b"",
        "text.wav": b"this is not a sound\n" * 9,
        "random.flac": rng.bytes(4000),
        "zeros.ogg": bytes(4096),
    }
    found |= {f"size {size}.wav": wav(size=size) for size in huge}
    found |= {f"rate {rate}.wav": wav(rate=rate) for rate in (0, 1, 3999, 768_001, 2**31, 4_000_000_000, 2**32 - 1)}
    found |= {f"channels {n}.wav": wav(channels=n) for n in (0, 9, 255, 256, 1024, 1025, 65535)}
    found |= {f"bits {bits}.wav": wav(bits=bits) for bits in (0, 1, 7, 12, 13, 20, 33, 64, 65, 128, 65535)}
    found |= {f"tag {tag}.wav": wav(tag=tag) for tag in (0, 2, 3, 6, 7, 17, 49, 80, 85, 0xFFFE, 0xFFFF)}
    found |= {f"align {align}.wav": wav(align=align) for align in (0, 1, 3, 65535)}
    found |= {f"fmt {fmt}.wav": wav(fmt=fmt) for fmt in (0, 2, 14, 15, 17, 18, 40, 2**31, 2**32 - 1)}
    found |= {f"size {size}.au": au(size=size) for size in huge}
    found |= {f"encoding {n}.au": au(encoding=n) for n in range(0, 30)}
    found |= {f"offset {n}.au": au(offset=n) for n in huge}
    found |= {f"channels {n}.au": au(channels=n) for n in huge}
    sound = known["FLAC/PCM_16/1"]
    found |= {f"frames 2^{n}.flac": flac(2**n - 1, sound) for n in (0, 1, 9, 16, 20, 32, 36)}
    found |= {f"channels {n}.flac": flac(480, sound, channels=n) for n in (2, 8)}
    found |= {f"rate {n}.flac": flac(480, sound, rate=n) for n in (0, 1, 2**20 - 1)}
    found |= {f"bits {n}.flac": flac(480, sound, bits=n) for n in (1, 4, 24, 32)}
    found |= {f"frames {n}.aiff": aiff(frames=n) for n in huge}
    found |= {f"channels {n}.aiff": aiff(channels=n) for n in (-1, 0, 9, 32767)}
    found |= {f"bits {n}.aiff": aiff(bits=n) for n in (-1, 0, 1, 33, 32767)}
    rates = (bytes(10), b"\xff" * 10, b"\x7f\xff" + b"\xff" * 8, b"\xc0\x0b\xfa" + bytes(7), b"\x40\x3e" + b"\xff" * 8)
    found |= {f"rate {n}.aiff": aiff(rate=rate) for n, rate in enumerate(rates)}
    for name, at, width in (
        ("OGG/VORBIS/1", 6, 8),
        ("OGG/OPUS/1", 6, 8),
        ("W64/PCM_16/1", 16, 8),
        ("CAF/PCM_16/1", 12, 8),
    ):
        ending = ENDINGS[name.split("/")[0]]
        data = known[name]
        # the granule position of the last page is the length of an Ogg file
        where = data.rfind(b"OggS") + at if ending == "ogg" else at
        for size in (0, 1, 2**31, 2**40, 2**62, 2**63 - 1, 2**64 - 1):
            number = size.to_bytes(width, "big" if ending == "caf" else "little")
            found[f"{name.replace('/', ' ')} length {size}.{ending}"] = data[:where] + number + data[where + width :]
    for name, data in known.items():
        found[f"{name.replace('/', ' ')} called text.txt"] = data
        found[f"{name.replace('/', ' ')} called otherwise.{'flac' if 'WAV' in name else 'wav'}"] = data
    found["nested.wav"] = wav(body=wav(body=wav()))
    found["twice.wav"] = wav() + wav()
    found["loud.wav"] = wav(tag=3, bits=64, body=struct.pack("<120d", *[1e308, -1e308, 5e-324, 1e39] * 30))
    found["nan.wav"] = wav(tag=3, bits=32, body=struct.pack("<240f", *[float("nan")] * 240))
    return found


# --- what is done with each ---


class Attack:
    """What a sound file goes through; a change is refused whole, or gives a sound of the promised length."""

    def __init__(self, folder: Path) -> None:
        self.editor, self.out = tiny_editor(folder), folder / "out"
        self.out.mkdir()

    def __call__(self, path: Path) -> None:
        target = self.out / f"out{path.suffix}"
        try:
            info = audio_info(path)
            clip = read_clip(path)
            if clip.waveform.shape != (info.channels, info.frames):
                raise Wrong(f"{list(clip.waveform.shape)} samples, {info.frames} promised")
            self.editor.edit_file(path, target)
            self.check(target, info.frames, info.channels)
        except AudioSteerError:
            if target.exists():
                raise Wrong("an output of a sound that was refused") from None
            raise
        finally:
            if self.editor.steered.model.module.feature_extractor.encodec.encoder._forward_hooks:
                raise Wrong("a hook was left on the model")
            left = [file.name for file in self.out.iterdir() if file != target]
            target.unlink(missing_ok=True)
            if left:
                raise Wrong(f"left behind: {left}")

    def check(self, target: Path, frames: int, channels: int) -> None:
        samples, _ = soundfile.read(target, always_2d=True)
        # some formats write blocks of a fixed length
        if samples.shape[1] != channels or not frames <= len(samples) < frames + 2400:
            raise Wrong(f"the output is {samples.shape}, the input has {frames} frames in {channels} channels")
        if not np.isfinite(samples).all():
            raise Wrong("the output has samples that are not finite")


def files(folder: Path, count: int) -> Iterator[tuple[str, Path]]:
    """Malformed sound files, one at a time: (name, path)."""
    known = seeds()
    for name, path in bad_paths(folder / "paths", ".wav").items():
        yield f"path {name}", path
    for name, data in by_hand(known).items():
        path = folder / name
        path.write_bytes(data)
        yield name, path
        path.unlink()
    names = list(known)
    # the formats that people have come up more often
    common = [name for name in names if name.split("/")[0] in ENDINGS and name.split("/")[1] in COMMON]
    for index in range(count):
        rng = np.random.default_rng([7, index])
        pool = common if rng.random() < 0.5 else names
        name, other = pool[int(rng.integers(len(pool)))], names[int(rng.integers(len(names)))]
        ending = ENDINGS.get(name.split("/")[0], "wav") if rng.random() < 0.9 else rng.choice(list(ENDINGS.values()))
        path = folder / f"mutant {index}.{ending}"
        path.write_bytes(mutated(known[name], rng, known[other]))
        yield f"{name} {path.name}", path
        path.unlink()


def cases(folder: Path, count: int) -> Iterator[Case]:
    attack: Callable[[Path], None] = Attack(folder)
    for name, path in files(folder, count):
        yield Case(name, lambda path=path: attack(path), str(path))  # type: ignore[misc]
