"""Sounds for measurements: of the lengths that were asked for, and always the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.batch.made import bursts, lengths, write_bursts, write_voices
from hooks import read_clip
from hooks.clip import audio_info


def test_lengths_go_in_equal_ratios_from_the_shortest_to_the_longest() -> None:
    found = lengths(4, 0.5, 4.0)
    assert sorted(found) == pytest.approx([0.5, 1.0, 2.0, 4.0])
    assert found == lengths(4, 0.5, 4.0) != sorted(found)
    assert lengths(1, 0.5, 4.0) == [0.5]


def test_voices_are_as_long_as_asked_for_differ_and_come_again_the_same(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_voices(tmp_path / folder, [0.5, 0.5, 7.0], 8_000)
    first, second, third = sorted((tmp_path / "a").iterdir())
    assert [audio_info(path).frames for path in (first, second, third)] == [4_000, 4_000, 56_000]
    assert not torch.equal(read_clip(first).waveform, read_clip(second).waveform)
    assert [path.read_bytes() for path in (first, second, third)] == [
        path.read_bytes() for path in sorted((tmp_path / "b").iterdir())
    ]
    assert 0.1 < read_clip(third).waveform.abs().max() < 1


def test_bursts_are_written_second_by_second_and_stay_below_full_scale(tmp_path: Path) -> None:
    info = audio_info(write_bursts(tmp_path / "long.wav", 3, 8_000))
    assert (info.frames, info.channels, info.subtype) == (24_000, 1, "PCM_16")
    seconds = list(bursts(3, 8_000))
    assert [tuple(block.shape) for block in seconds] == [(1, 8_000)] * 3
    written = read_clip(tmp_path / "long.wav").waveform
    assert torch.allclose(written, torch.cat(seconds, dim=1).clamp(-1, 1), atol=1 / 32_000)
