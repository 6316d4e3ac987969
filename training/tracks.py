"""Tracks that a speech encoder is trained on: recordings strung together, a part of them no speech."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from training.sounds import read_mono, read_rows
from training.units import sample_count
from training.utterances import SAMPLE_RATE, Mixer, Piece

TRACK = 399
"""Frames of a track, 8 s."""
SOUNDS = ("esc10", "notes", "singing", "noise_rir")
SHARES = {"digits": 15, "keywords": 10, "orders": 15, "ljspeech": 5, "speech_misc": 3, "espeak": 29,
          "esc10": 12, "notes": 6, "singing": 3, "noise_rir": 2}  # fmt: skip
"""Of the time, in per cent."""


def sound_pieces(audio: Path, split: str) -> list[Piece]:
    """Recordings without speech; their text is what is heard."""
    rows = (entry for entry in read_rows(audio, split) if entry[0] in SOUNDS)
    return [Piece(subset, "", row["label"], read_mono(path, SAMPLE_RATE)) for subset, path, row in rows]


def make_tracks(pieces: list[Piece], count: int, seed: int) -> np.ndarray:
    """Pieces strung together at random and cut into tracks, int16 [count, samples], wherever a track ends."""
    mixer = Mixer([], [], [], seed)
    rng = mixer.rng
    groups: dict[str, list[np.ndarray]] = {}
    for piece in pieces:
        groups.setdefault(piece.group, []).append(piece.waveform)
    names = list(groups)
    # the shares are of time, the pieces of some groups are much longer than those of others
    often = np.array([SHARES[name] / np.mean([len(wave) for wave in groups[name]]) for name in names])
    tape, position = np.zeros(count * sample_count(TRACK), np.int16), 0
    while position < len(tape):
        group = groups[names[rng.choice(len(names), p=often / often.sum())]]
        wave = mixer.voiced(group[rng.integers(len(group))])[: len(tape) - position]
        tape[position : position + len(wave)] = (wave.clip(-1, 1) * 32767).round()
        position += len(wave) + int(rng.uniform(0.05, 0.5) * SAMPLE_RATE)
    return tape.reshape(count, -1)
