"""Titles, artists, cue marks, pictures: what a sound file has beside its sound, and what another one takes of it.

Between files of one container its own blocks are copied as they are (WAV and AIFF chunks, FLAC blocks, ID3 of MP3);
else what libsndfile knows by name goes over (title, artist, ...), and `lost` says what does not.
"""

from __future__ import annotations

import os
import shutil
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import soundfile

from hooks.containers.mpeg import tag_size
from hooks.files import whole_file
from hooks.sound_info import AudioInfo

STRINGS = (
    "title", "copyright", "software", "artist", "comment", "date", "album", "license", "tracknumber", "genre",
)  # fmt: skip
NAMED = ("WAV", "WAVEX", "RF64", "AIFF", "FLAC", "OGG", "CAF", "MP3")
"""Formats in which libsndfile writes those."""
OTHER_NAMES = {"track": "tracknumber", "description": "comment", "year": "date"}
"""What ffmpeg calls some of them."""
SOUND = {b"fmt ", b"data", b"fact", b"PEAK", b"ds64", b"JUNK", b"FLLR", b"PAD ", b"COMM", b"SSND", b"FVER"}
"""Chunks that belong to the sound itself or to its writer."""
WORDS = {
    b"cue ": "cue marks", b"MARK": "cue marks", b"smpl": "loops", b"INST": "loops", b"inst": "instrument",
    b"bext": "broadcast data (bext)", b"iXML": "iXML", b"id3 ": "ID3 tags", b"ID3 ": "ID3 tags", b"LIST": "labels",
    b"COMT": "comments", b"APPL": "application data", b"_PMX": "XMP", b"axml": "axml", b"acid": "ACID data",
}  # fmt: skip
MOST_CHUNKS, MOST_BYTES = 4096, 2**26
FLAC_COMMENT, FLAC_PICTURE = 4, 6
FLAC_WORDS = {2: "application data", 5: "cue sheet", FLAC_PICTURE: "picture"}


@dataclass(frozen=True)
class Tags:
    """What a file has beside its sound. `family` is the container of its `blocks` [(name, content)]; `strings` are
    those that libsndfile knows by name, and `words` say what `blocks` hold, for people."""

    family: str = ""
    strings: dict[str, str] = field(default_factory=dict)
    blocks: tuple[tuple[bytes, bytes], ...] = field(default=(), repr=False)
    words: tuple[str, ...] = ()

    def lost(self, format: str) -> list[str]:
        """What a file of that format will not have, a sentence each."""
        if self.family == family_of(format):
            return []
        missing = [*self.words]
        if format not in NAMED and self.strings:
            missing = [*self.strings, *missing]
        return [f"not carried over to {format}: {', '.join(dict.fromkeys(missing))}"] if missing else []

    def start(self, file: soundfile.SoundFile) -> None:
        """Give a file that is written its strings, before its samples."""
        if self.blocks and self.family == family_of(file.format):
            return
        for name, text in self.strings.items():
            with suppress(soundfile.SoundFileError):  # a format that has no place for that one
                setattr(file, name, text)

    def finish(self, path: Path, format: str) -> None:
        """Put the blocks into a file that is written.

        Raises:
            OSError: the disk is full.
        """
        if not self.blocks or self.family != family_of(format):
            return
        if self.family in ("WAV", "AIFF"):
            append_chunks(path, self.blocks)
        else:
            rewrite(path, self.blocks, self.family)


def family_of(format: str) -> str:
    return {"WAVEX": "WAV", "RF64": ""}.get(format, format)


def read_tags(info: AudioInfo) -> Tags:
    """What a file has beside its sound; nothing where it cannot be read."""
    if info.decoded is not None:
        named = {OTHER_NAMES.get(key, key): text for key, text in info.decoded.tags.items()}
        return Tags("", {name: named[name] for name in STRINGS if name in named and name != "software"})
    strings: dict[str, str] = {}
    with (
        suppress(soundfile.SoundFileError, OSError, UnicodeDecodeError),
        soundfile.SoundFile(os.fsencode(info.path)) as file,
    ):
        strings = {name: text for name, text in file.copy_metadata().items() if name in STRINGS and name != "software"}
    family = family_of(info.format)
    with suppress(OSError, struct.error, IndexError), info.path.open("rb") as opened:
        if family == "WAV":
            return tags_of_chunks("WAV", strings, chunks(opened, "<"))
        if family == "AIFF":
            return tags_of_chunks("AIFF", strings, chunks(opened, ">"))
        if family == "FLAC":
            return flac_tags(opened, strings)
        if family == "MP3":
            return mp3_tags(opened, strings)
        if family == "OGG":
            return Tags("OGG?", strings, words=tuple(ogg_words(opened.read(2**16))))
    return Tags("", strings)


def chunks(file: BinaryIO, order: str) -> list[tuple[bytes, bytes]]:
    """All chunks but those of the sound itself."""
    size = file.seek(0, os.SEEK_END)
    found: list[tuple[bytes, bytes]] = []
    at = 12
    for _ in range(MOST_CHUNKS):
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            break
        name, length = struct.unpack(f"{order}4sI", head)
        # behind the file's own chunks may be another file
        is_chunk = all(32 <= letter < 127 for letter in name) and name not in (b"RIFF", b"RIFX", b"RF64", b"FORM")
        if at + 8 + length > size or not is_chunk:
            break
        if name not in SOUND and length < MOST_BYTES:
            found.append((name, file.read(length)))
        at += 8 + length + length % 2
    return found


def tags_of_chunks(family: str, strings: dict[str, str], blocks: list[tuple[bytes, bytes]]) -> Tags:
    named = [b"NAME", b"AUTH", b"ANNO", b"(c) "]
    words = [
        WORDS.get(name, name.decode("ascii").strip())
        for name, content in blocks
        # what libsndfile reads goes over by name
        if not (name == b"LIST" and content[:4] == b"INFO") and name not in named
    ]
    return Tags(family, strings, tuple(blocks), tuple(dict.fromkeys(words)))


def append_chunks(path: Path, blocks: tuple[tuple[bytes, bytes], ...]) -> None:
    """After the last chunk of a WAV or AIFF, whose size in the first one grows; nothing where 4 GiB are exceeded."""
    with path.open("r+b") as file:
        order = "<" if file.read(4) == b"RIFF" else ">"
        end = file.seek(0, os.SEEK_END)
        size = sum(8 + len(content) + len(content) % 2 for _, content in blocks)
        if end + end % 2 + size - 8 >= 2**32:  # its size has 32 bits
            return
        if end % 2:
            file.write(b"\0")
        for name, content in blocks:
            file.write(name + struct.pack(f"{order}I", len(content)) + content + b"\0" * (len(content) % 2))
        end = file.tell()
        file.seek(4)
        file.write(struct.pack(f"{order}I", end - 8))


def flac_blocks(file: BinaryIO) -> tuple[list[tuple[int, bytes]], int]:
    """The metadata blocks of a FLAC, and where the first frame begins."""
    file.seek(4)
    found: list[tuple[int, bytes]] = []
    last = False
    while not last and len(found) < MOST_CHUNKS:
        head = file.read(4)
        last, kind = bool(head[0] & 0x80), head[0] & 0x7F
        found.append((kind, file.read(int.from_bytes(head[1:], "big"))))
    return found, file.tell()


def flac_tags(file: BinaryIO, strings: dict[str, str]) -> Tags:
    found, _ = flac_blocks(file)
    blocks = [(bytes([kind]), content) for kind, content in found if kind in (FLAC_COMMENT, *FLAC_WORDS)]
    comments = [content for kind, content in found if kind == FLAC_COMMENT]
    others = [name for content in comments for name in comment_names(content) if name not in STRINGS]
    if not others and not strings and all(kind[0] == FLAC_COMMENT for kind, _ in blocks):
        return Tags()  # the name of the encoder alone
    words = [FLAC_WORDS[kind[0]] for kind, _ in blocks if kind[0] in FLAC_WORDS]
    return Tags("FLAC", strings, tuple(blocks), tuple(dict.fromkeys([*others, *words])))


def comment_names(content: bytes) -> list[str]:
    """The names in a Vorbis comment, in small letters."""
    at = 4 + int.from_bytes(content[:4], "little")
    count = int.from_bytes(content[at : at + 4], "little")
    at, names = at + 4, []
    for _ in range(min(count, MOST_CHUNKS)):
        length = int.from_bytes(content[at : at + 4], "little")
        name, _, _ = content[at + 4 : at + 4 + length].partition(b"=")
        if name:
            names.append(name.decode("utf-8", "replace").lower()[:40])
        at += 4 + length
    return names


def ogg_words(data: bytes) -> list[str]:
    """What the comments of an Ogg hold beside what libsndfile knows by name."""
    for mark in (b"\x03vorbis", b"OpusTags"):
        at = data.find(mark)
        if at >= 0:
            ignored = (*STRINGS, "encoder", "encoder_options")
            names = [name for name in comment_names(data[at + len(mark) :]) if name not in ignored]
            return ["picture" if name == "metadata_block_picture" else name for name in dict.fromkeys(names)]
    return []


def mp3_tags(file: BinaryIO, strings: dict[str, str]) -> Tags:
    head = file.read(10)
    size = tag_size(head, 0)
    file.seek(0)
    before = file.read(size) if 0 < size < MOST_BYTES else b""
    file.seek(max(0, file.seek(0, os.SEEK_END) - 128))
    behind = file.read(128)
    blocks = [(b"before", before)] if before else []
    blocks += [(b"behind", behind)] if behind[:3] == b"TAG" else []
    words = ("picture",) if b"APIC" in before or b"\0PIC" in before else ()
    return Tags("MP3", strings, tuple(blocks), words)


def rewrite(path: Path, blocks: tuple[tuple[bytes, bytes], ...], family: str) -> None:
    """A FLAC or MP3 anew with these blocks before (or behind) the frames, which are copied."""
    with whole_file(path) as partial, path.open("rb") as source, partial.open("wb") as target:
        if family == "MP3":
            named = dict(blocks)
            source.seek(tag_size(source.read(10), 0))
            target.write(named.get(b"before", b""))
            shutil.copyfileobj(source, target)
            target.write(named.get(b"behind", b""))
            return
        kept, start = flac_blocks(source)
        new = [kept[0], *((kind[0], content) for kind, content in blocks)]
        new += [(kind, content) for kind, content in kept[1:] if kind not in (FLAC_COMMENT, *FLAC_WORDS)]
        target.write(b"fLaC")
        for number, (kind, content) in enumerate(new, 1):
            last = 0x80 if number == len(new) else 0
            target.write(bytes([kind | last]) + len(content).to_bytes(3, "big") + content)
        source.seek(start)
        shutil.copyfileobj(source, target)
