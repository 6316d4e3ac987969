"""What a file has beside its sound goes over, or is told; read by mutagen where that is installed."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from hooks.clip import audio_info, create_audio, read_clip
from hooks.sound_files import kind_of
from hooks.tags import read_tags
from tests.hard_sounds import RATE, case, tone

STRINGS = {"title": "Täke 3", "artist": "Ann", "album": "A", "date": "2024", "genre": "Folk", "tracknumber": "3"}


def copied(source: Path, target: Path) -> list[str]:
    """The same sound with the tags of the source; gives what is told of those that are lost."""
    info = audio_info(source)
    tags, kind, clip = read_tags(info), kind_of(info, target), read_clip(source)
    with create_audio(target, RATE, info.channels, *kind, frames=info.frames, tags=tags) as writer:
        writer.write(clip.waveform)
    assert audio_info(target).frames == info.frames and audio_info(target).notes == ()
    return tags.lost(kind[0])


def made(path: Path, **strings: str) -> Path:
    with soundfile.SoundFile(path, "w", RATE, 1) as file:
        for name, text in strings.items():
            setattr(file, name, text)
        file.write(tone(1))
    return path


def strings_of(path: Path) -> dict[str, str]:
    found = soundfile.SoundFile(path).copy_metadata()
    return {name: text for name, text in found.items() if text and name != "software"}


def test_the_case(tmp_path: Path) -> None:
    source, target = case("metadata-lost/take.wav", tmp_path), tmp_path / "out.wav"
    assert copied(source, target) == []
    assert soundfile.SoundFile(target).copy_metadata() == {"title": "Take 3"}
    data = target.read_bytes()
    assert struct.unpack("<IIII", data[data.index(b"cue ") + 4 :][:16]) == (28, 1, 1, 12_000)
    assert struct.unpack("<I", data[4:8]) == (len(data) - 8,)
    assert np.array_equal(soundfile.read(source)[0], soundfile.read(target)[0])


@pytest.mark.parametrize("source", ["a.wav", "a.flac", "a.ogg", "a.aiff", "a.mp3"])
@pytest.mark.parametrize("target", ["b.wav", "b.flac", "b.ogg", "b.aiff", "b.mp3", "b.caf"])
def test_titles_go_from_each_format_to_each(source: str, target: str, tmp_path: Path) -> None:
    path = made(tmp_path / source, **STRINGS)
    had = strings_of(path)
    assert had["title"] == STRINGS["title"] and had["artist"] == "Ann"
    assert copied(path, tmp_path / target) == []
    found = strings_of(tmp_path / target)
    # AIFF and CAF have fewer names
    assert found.items() <= had.items() and {"title", "artist"} <= found.keys()


def test_what_is_lost_is_told(tmp_path: Path) -> None:
    wav = case("metadata-lost/take.wav", tmp_path)
    assert copied(wav, tmp_path / "a.flac") == ["not carried over to FLAC: cue marks"]
    assert strings_of(tmp_path / "a.flac") == {"title": "Take 3"}
    assert copied(wav, tmp_path / "a.au") == ["not carried over to AU: title, cue marks"]
    assert copied(made(tmp_path / "plain.wav"), tmp_path / "b.au") == []


def test_pictures_and_names_of_ones_own(tmp_path: Path) -> None:
    mutagen = pytest.importorskip("mutagen")
    from mutagen.flac import FLAC, Picture
    from mutagen.id3 import APIC, TXXX

    path = made(tmp_path / "a.flac", title="T")
    file = FLAC(path)
    picture = Picture()
    picture.data, picture.mime, picture.type = b"\x89PNG" + bytes(300), "image/png", 3
    file.add_picture(picture)
    file["mood"] = ["calm", "slow"]
    file.save()
    assert copied(path, tmp_path / "b.flac") == []
    back = FLAC(tmp_path / "b.flac")
    assert back["mood"] == ["calm", "slow"] and back["title"] == ["T"] and back.pictures[0].data == picture.data
    assert copied(path, tmp_path / "b.ogg") == ["not carried over to OGG: mood, picture"]
    mp3 = made(tmp_path / "a.mp3", title="T")
    tagged = mutagen.File(mp3)
    if tagged.tags is None:
        tagged.add_tags()
    tagged.tags.add(APIC(mime="image/png", type=3, data=picture.data))
    tagged.tags.add(TXXX(desc="mood", text=["calm"]))
    tagged.save()
    assert copied(mp3, tmp_path / "b.mp3") == []
    names = mutagen.File(tmp_path / "b.mp3").tags
    assert names.getall("APIC")[0].data == picture.data and names["TXXX:mood"].text == ["calm"]
    assert copied(mp3, tmp_path / "c.wav") == ["not carried over to WAV: picture"]
    ogg = made(tmp_path / "a.ogg", title="T")
    comments = mutagen.File(ogg)
    comments["mood"] = "calm"
    comments.save()
    assert copied(ogg, tmp_path / "d.ogg") == ["not carried over to OGG: mood"]


def test_a_file_that_ends_in_its_tags_is_none_the_worse(tmp_path: Path) -> None:
    path = case("metadata-lost/take.wav", tmp_path)
    cut = tmp_path / "cut.wav"
    cut.write_bytes(path.read_bytes()[:-9])
    info = audio_info(cut)
    assert info.frames == RATE and read_tags(info).strings == {"title": "Take 3"}
