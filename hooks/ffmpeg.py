"""Sounds that libsndfile does not decode (AAC, video files, ...), through the program ffmpeg where it is installed."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import weakref
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from hooks.errors import AudioFileError
from hooks.files import Stamp, stamp_of

log = logging.getLogger(f"audiosteer.{__name__}")
ENDINGS = (
    ".m4a", ".m4b", ".mp4", ".m4v", ".mov", ".3gp", ".aac", ".webm", ".mka", ".mkv", ".wma", ".wmv", ".asf", ".avi",
    ".flv", ".mpg", ".mpeg", ".amr", ".ac3", ".eac3", ".ape", ".wv", ".spx", ".mp2",
)  # fmt: skip
"""Endings of files with sound that only ffmpeg decodes."""
INSTALL = (
    "install ffmpeg (apt install ffmpeg, brew install ffmpeg, winget install ffmpeg), or convert it to WAV or FLAC"
)
SAFE = ("-nostdin", "-v", "error", "-protocol_whitelist", "file,pipe")
"""A file may name others, on the network too: nothing but the file is opened."""


def is_media(head: bytes) -> bool:
    """Whether a file begins as one that ffmpeg decodes and libsndfile does not: MP4, Matroska, ASF, AMR, AAC, AVI."""
    return (
        head[4:8] == b"ftyp"
        or head[:4]
        in (b"\x1aE\xdf\xa3", b"0&\xb2u", b"MAC ", b"wvpk", b"TTA1", b"MPCK", b"FLV\x01", b"\x00\x00\x01\xba")
        or head[:5] == b"#!AMR"
        or (head[:4] == b"RIFF" and head[8:12] == b"AVI ")
        or (len(head) > 2 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0)
        or (head[:4] == b"OggS" and head[28:36] == b"Speex   ")
    )


PACKED_IN_WAV = (0x50, 0x55, 0xFF, 0x160, 0x161, 0x162, 0x163, 0x1600, 0x1602, 0x1610, 0x2000, 0x2001, 0x674F, 0x704F)
"""Numbers that a WAV gives to MPEG, AAC, WMA, AC-3, DTS and Vorbis inside."""


def is_packed(head: bytes) -> bool:
    """Whether a file of libsndfile's holds what it does not decode, or not to the end: a WAV with MP3, an Ogg with FLAC
    as ffmpeg writes it."""
    if head[:4] in (b"RIFF", b"RF64") and head[12:16] == b"fmt ":
        return int.from_bytes(head[20:22], "little") in PACKED_IN_WAV
    return head[:4] == b"OggS" and head[28:33] == b"\x7fFLAC"


def is_there() -> bool:
    """Whether ffmpeg is installed."""
    return shutil.which("ffmpeg") is not None and shutil.which("ffprobe") is not None


@dataclass(frozen=True)
class Decoded:
    """A sound as ffmpeg decoded it: a WAV of 32-bit floats that is deleted with this object.

    `codec`, `bits` (0 for lossy codecs) and `tags` are those of the first of the file's `tracks` of sound.
    """

    path: Path
    codec: str
    bits: int
    tags: dict[str, str]
    tracks: int
    complaint: str


_known: weakref.WeakValueDictionary[tuple[str, Stamp], Decoded] = weakref.WeakValueDictionary()


def decode(path: Path) -> Decoded:
    """Decode a file's first track of sound, at its rate and with its channels; once, while somebody has the result.

    Raises:
        AudioFileError: ffmpeg is not installed (the message says how to get it), the file has no sound, or it is
            damaged.
        OSError: it is gone.
    """
    key = os.path.abspath(path), stamp_of(path)
    found = _known.get(key)
    if found is None:
        found = _known[key] = decoded_now(path)
    return found


def decoded_now(path: Path) -> Decoded:
    """As `decode`."""
    ffmpeg, ffprobe = shutil.which("ffmpeg"), shutil.which("ffprobe")
    if ffmpeg is None or ffprobe is None:
        raise AudioFileError(f"{path}: a kind of file that is decoded by ffmpeg, which is not installed; {INSTALL}")
    name = f"file:{os.path.abspath(path)}"
    about = probe(ffprobe, path, name)
    tracks = about.get("streams") or []
    if not tracks:
        raise AudioFileError(f"{path}: has no sound that ffmpeg can decode")
    folder = Path(mkdtemp(prefix="steer-"))
    try:
        target = folder / "decoded.wav"
        # above 4 GiB an RF64; not W64, of whose floats libsndfile takes some for integers
        how = ("-map", "0:a:0", "-c:a", "pcm_f32le", "-f", "wav", "-rf64", "auto")
        command = [ffmpeg, *SAFE, "-i", name, *how, str(target)]
        log.info("%s: decoding with ffmpeg", path)
        log.debug("%s", command)
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
        complaint = last_line(done.stderr)
        if done.returncode or not target.is_file():
            raise AudioFileError(f"{path}: ffmpeg cannot decode it ({complaint or done.returncode})")
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    first = tracks[0]
    tags = {key.lower(): str(value) for key, value in (about.get("format", {}).get("tags") or {}).items()}
    tags |= {key.lower(): str(value) for key, value in (first.get("tags") or {}).items()}
    bits = int(first.get("bits_per_raw_sample") or 0)
    decoded = Decoded(target, str(first.get("codec_name", "")).upper(), bits, tags, len(tracks), complaint)
    weakref.finalize(decoded, shutil.rmtree, folder, ignore_errors=True)
    return decoded


def probe(ffprobe: str, path: Path, name: str) -> dict[str, Any]:
    """What ffprobe tells of a file's tracks of sound and of its tags.

    Raises:
        AudioFileError: it cannot be read.
    """
    entries = "stream=codec_name,bits_per_raw_sample:stream_tags:format=duration:format_tags"
    command = [ffprobe, *SAFE[1:], "-select_streams", "a", "-show_entries", entries, "-of", "json", name]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    try:
        found = json.loads(done.stdout or "{}")
    except ValueError:
        found = {}
    if done.returncode or not isinstance(found, dict):
        raise AudioFileError(f"{path}: ffmpeg cannot read it ({last_line(done.stderr) or done.returncode})")
    return found


def duration(path: Path) -> float:
    """How long a file is by its own account, in seconds; 0 where that cannot be told."""
    ffprobe = shutil.which("ffprobe")
    try:
        about = probe(ffprobe, path, f"file:{os.path.abspath(path)}") if ffprobe else {}
        return max(0.0, float(about.get("format", {}).get("duration", 0.0)))
    except (AudioFileError, ValueError):
        return 0.0


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else ""
