from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from training.common_words import COMMON_WORDS
from training.sounds import rms
from training.utterances import (
    SAMPLE_RATE,
    SILENT,
    Mixer,
    Piece,
    backgrounds,
    speech_pieces,
    spoken_pieces,
    synthetic_pieces,
    vocabulary,
)

COLUMNS = ("path", "split", "text", "label", "speaker")


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three subsets in the layout of the training data."""
    root = tmp_path_factory.mktemp("audio")
    rows = {
        "digits": [("a.flac", "train", "one", "1", "ann"), ("b.flac", "valid", "zero", "0", "ann")],
        "orders": [("c.flac", "train", "one large espresso please", "coffee", "")],
        "noise_rir": [("n.flac", "train", "", "noise", ""), ("r.flac", "train", "", "rir", "")],
    }
    for subset, entries in rows.items():
        (root / subset).mkdir()
        with (root / subset / "manifest.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows(entries)
        for index, (name, *_) in enumerate(entries):
            noise = 0.1 * np.random.default_rng(index).standard_normal(SAMPLE_RATE // 2)
            soundfile.write(root / subset / name, noise, SAMPLE_RATE)
    return root


def test_only_training_texts_and_sounds_are_used(audio: Path) -> None:
    assert set(vocabulary(audio)) == {*COMMON_WORDS, "espresso", "one"}  # not the "zero" of a valid clip
    assert [(piece.group, piece.text) for piece in spoken_pieces(audio, "train")] == [
        ("digits", "one"),
        ("orders", "one large espresso please"),
    ]
    noises, rooms = backgrounds(audio)
    assert len(noises) == len(rooms) == 1


def test_without_recordings_the_message_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no .* below"):
        speech_pieces(tmp_path / "nothing", tmp_path, 1)


@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="needs the program espeak-ng")
def test_pieces_are_prepared_once(audio: Path, tmp_path: Path) -> None:
    pieces = speech_pieces(audio, tmp_path, count=3)
    assert [piece.group for piece in pieces] == ["digits", "orders", "espeak", "espeak", "espeak"]
    assert all(rms(piece.waveform) > 1e-3 for piece in pieces)
    assert set(" ".join(piece.text for piece in pieces).split()) <= set(vocabulary(audio))
    again = synthetic_pieces(audio, 3, np.random.default_rng(0))
    assert [piece.text for piece in again] == [piece.text for piece in pieces[2:]]
    (stored,) = tmp_path.glob("speech-*.safetensors")
    before = stored.stat().st_mtime_ns
    reread = speech_pieces(audio, tmp_path, count=3)
    assert stored.stat().st_mtime_ns == before
    assert [piece.text for piece in reread] == [piece.text for piece in pieces]


@pytest.fixture
def mixer() -> Mixer:
    rng = np.random.default_rng(0)
    pieces = [
        Piece(group, "ann", text, (0.1 * rng.standard_normal(SAMPLE_RATE)).astype(np.float32))
        for group, text in (("digits", "one"), ("orders", "two"))
    ]
    noise = rng.standard_normal(3000).astype(np.float32)
    return Mixer(pieces, [noise], [np.r_[1.0, np.zeros(100), 0.5].astype(np.float32)], seed=0)


def test_mixtures_fit_the_window_and_have_words(mixer: Mixer) -> None:
    lengths, words = [], []
    for _ in range(60):
        wave, text = mixer.draw(8.0)
        assert wave.dtype == np.float32
        assert len(wave) <= 8 * SAMPLE_RATE
        assert np.abs(wave).max() <= 1
        assert set(text.split()) <= {"one", "two"}
        if text:  # else it is silence
            lengths.append(len(wave))
            words.append(len(text.split()))
    assert max(words) >= 3
    # a word is about a second long: the more words, the longer
    assert np.corrcoef(lengths, words)[0, 1] > 0.9


def test_noise_has_level_one_whatever_its_source(mixer: Mixer) -> None:
    levels = [rms(mixer.noise(SAMPLE_RATE)) for _ in range(20)]
    assert np.allclose(levels, 1.0, atol=1e-3)  # float32


def test_a_few_windows_are_silent_and_have_no_words() -> None:
    wave = (0.1 * np.random.default_rng(0).standard_normal(SAMPLE_RATE // 2)).astype(np.float32)
    mixer = Mixer([Piece("digits", "", "one", wave)], [], [], seed=0)
    drawn = [mixer.draw(2.0) for _ in range(300)]
    silent = [sound for sound, text in drawn if not text]
    assert 0.5 * SILENT < len(silent) / len(drawn) < 2 * SILENT
    assert all(rms(sound) < 10 ** (-65 / 20) for sound in silent)
    assert not all(sound.any() for sound in silent)  # some are digital silence
    assert all(rms(sound) > 10 ** (-31 / 20) for sound, text in drawn if text)
