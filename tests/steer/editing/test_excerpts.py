from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hooks import AudioFileError
from hooks.clip import AudioInfo, audio_info, read_clip
from steer.editing.excerpts import PIECE_S, PIECES, choose, read_stretches

LONG = AudioInfo(Path("long.wav"), 8000, 1, 8000 * 600, "WAV", "PCM_16")


def test_short_files_are_tried_whole(sound: Callable[..., Path]) -> None:
    info = audio_info(sound("a.wav", seconds=2.5))
    assert choose(info, None) == [(0.0, 2.5)]
    assert choose(info, [(1.0, 2.0), (2.25, 9.0)]) == [(1.0, 2.0), (2.25, 2.5)]
    assert choose(info, [(3.0, 4.0)]) == []


def test_of_long_files_the_loud_parts_are_tried() -> None:
    levels = [0.001] * 600
    loud = (20, 150, 230, 350, 430, 560)
    for second in loud:
        levels[second] = 1.0
    spans = choose(LONG, None, levels)
    assert len(spans) == PIECES
    assert all(
        end - start == PIECE_S and start <= second < end for (start, end), second in zip(spans, loud, strict=True)
    )


def test_of_long_spans_too() -> None:
    spans = choose(LONG, [(100.5, 200.0), (300.0, 301.0)], [1.0] * 600)
    assert len(spans) == PIECES
    assert all(100.5 <= start < end <= 200.0 for start, end in spans)
    assert all(start == int(start) for start, _ in spans)


def test_stretches_hold_the_samples_and_their_surroundings(sound: Callable[..., Path]) -> None:
    path = sound("a.wav", seconds=4.0, sample_rate=8000, channels=2)
    (stretch,) = read_stretches(audio_info(path), [(2.25, 2.5)], context_s=1.0)
    assert stretch.start_s == 1.0
    assert stretch.samples.dtype == torch.float64
    clip = read_clip(path)
    assert torch.equal(stretch.samples[:, stretch.inner].float(), clip.waveform[:, 18_000:20_000])
    assert torch.equal(stretch.samples.float(), clip.waveform[:, 8_000:28_000])


def test_damage_is_told(sound: Callable[..., Path]) -> None:
    path = sound("a.flac", seconds=4.0)
    path.write_bytes(path.read_bytes()[:-30_000])
    with pytest.raises(AudioFileError):
        read_stretches(audio_info(path), [(0.0, 4.0)], 1.0)
