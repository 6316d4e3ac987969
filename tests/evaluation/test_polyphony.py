from __future__ import annotations

import pytest
import torch

from evaluation.polyphony import CHORDS, MADE, MOST_CLIPS, chord, made_clips


@pytest.mark.parametrize("subset", MADE)
def test_made_clips_are_sounds_that_differ(subset: str) -> None:
    clips = made_clips(subset)
    assert len(clips) == MOST_CLIPS
    assert [clip.name for clip in clips[:2]] == [f"{subset}/0", f"{subset}/1"]
    for clip in clips:
        assert clip.waveform.shape == (1, 2 * clip.sample_rate)
        assert clip.waveform.abs().max() == pytest.approx(0.5, abs=0.01)
        assert clip.waveform[0, [0, -1]].abs().max() < 0.01
        assert clip.waveform.mean().abs() < 0.05 * clip.waveform.std()
    assert not torch.equal(clips[0].waveform, clips[1].waveform)
    assert torch.equal(clips[0].waveform, made_clips(subset, 1)[0].waveform)
    assert len(made_clips(subset, 3)) == 3
    assert len(made_clips(subset, 100)) == MOST_CLIPS


@pytest.mark.parametrize("index", range(len(CHORDS)))
def test_a_chord_has_its_notes(index: int) -> None:
    clip = chord(index)
    sound_N = clip.waveform[0, 4_410 : 4_410 + 2**15]
    power_K = torch.fft.rfft(sound_N * torch.hann_window(len(sound_N)), n=2**18).abs()
    hertz_K = torch.arange(len(power_K)) * clip.sample_rate / 2**18

    def strength(note: float) -> float:
        hertz = 440 * 2 ** ((note - 69) / 12)
        return float(power_K[(hertz_K - hertz).abs() < 3].max())

    # some lowest note puts every note of the chord on a strong partial
    weakest = max(min(strength(lowest + semitones) for semitones in CHORDS[index]) for lowest in range(40, 58))
    assert weakest > 0.1 * float(power_K.max())


def test_drums_have_sharp_beginnings_and_both_ends_of_the_spectrum() -> None:
    for clip in made_clips("drums", 4):
        sound_N = clip.waveform[0]
        power_K = torch.fft.rfft(sound_N).abs().square()
        hertz_K = torch.arange(len(power_K)) * clip.sample_rate / len(sound_N)
        for low, high in ((30, 200), (5_000, 20_000)):
            assert power_K[(hertz_K > low) & (hertz_K < high)].sum() > 0.002 * power_K.sum()
        level_T = sound_N[: len(sound_N) // 441 * 441].view(-1, 441).square().mean(1)
        rises = (level_T[1:] > 10 * level_T[:-1] + 1e-5).sum()
        assert rises >= 2
