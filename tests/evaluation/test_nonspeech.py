from __future__ import annotations

import pytest
import torch

from evaluation.nonspeech import KINDS, LOWEST_DB, SAMPLE_RATE, SILENCE_DB, Nonspeech


def test_each_kind_comes_equally_often_at_levels_in_range() -> None:
    for kind, wave_N in Nonspeech(0).sounds(3 * len(KINDS)):
        low, high = SILENCE_DB if kind == "silence" else (LOWEST_DB, 0.0)
        peak_db = 20 * float(wave_N.abs().amax().log10())
        assert SAMPLE_RATE <= len(wave_N) <= 30 * SAMPLE_RATE
        assert wave_N.dtype == torch.float32 and bool(wave_N.isfinite().all())
        assert low - 0.01 <= peak_db <= high + 0.01, kind
    assert [kind for kind, _ in Nonspeech(0).sounds(2 * len(KINDS))] == [*KINDS, *KINDS]


def test_a_seed_is_always_the_same_sounds() -> None:
    first, again, other = (list(Nonspeech(seed).sounds(len(KINDS))) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(first, again, strict=True))
    assert [len(wave_N) for _, wave_N in first] != [len(wave_N) for _, wave_N in other]


@pytest.mark.parametrize("kind", KINDS)
def test_the_shortest_and_the_longest_sound_of_a_kind(kind: str) -> None:
    for samples in (SAMPLE_RATE, 30 * SAMPLE_RATE):
        wave_N = KINDS[kind](Nonspeech(3), samples)
        assert wave_N.shape == (samples,) and float(wave_N.abs().amax()) > 0
