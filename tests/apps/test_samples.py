from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from apps.samples import BASS, CHORDS, MELODY, SAMPLES, hertz, sung_phrase
from hooks import Clip
from steer import open_model
from steer.acoustics import change, measure

Make = Callable[..., Clip]


def strongest_hertz(sound_N: torch.Tensor, sample_rate: int) -> float:
    power_K = torch.fft.rfft(sound_N * torch.hann_window(len(sound_N))).abs()
    return int(power_K.argmax()) * sample_rate / len(sound_N)


@pytest.mark.parametrize("name", SAMPLES)
def test_every_sample_can_be_heard_and_edited(name: str) -> None:
    clip = SAMPLES[name]()
    assert clip.waveform.shape[0] == 1
    assert 2 < clip.seconds < 10
    assert clip.waveform.abs().max() < 0.9
    assert -23 < 20 * clip.waveform.square().mean().sqrt().log10() < -14
    assert clip.waveform.mean().abs() < 0.05 * clip.waveform.std()
    # it starts and ends near zero: no click
    assert clip.waveform[0, [0, -1]].abs().max() < 5e-3
    assert torch.equal(clip.waveform, SAMPLES[name]().waveform)


@pytest.mark.parametrize("name", SAMPLES)
def test_the_same_sound_at_another_rate(name: str) -> None:
    low, high = SAMPLES[name](sample_rate=16_000), SAMPLES[name](sample_rate=48_000)
    assert low.seconds == pytest.approx(high.seconds, abs=0.01)
    assert high.waveform.isfinite().all()


@pytest.mark.parametrize("name", SAMPLES)
def test_the_starter_codec_carries_it(name: str) -> None:
    clip = SAMPLES[name]()
    again = open_model("starter:codec").resynthesize(clip)  # type: ignore[attr-defined]
    before, after = (measure(one.waveform, one.sample_rate, pitch=False) for one in (clip, again))
    changes = change(before, after)
    assert abs(changes["loudness"] or 0) < 2
    assert abs(changes["brightness"] or 0) < 25


@pytest.mark.parametrize("name", SAMPLES)
def test_starter_wavtokenizer_carries_its_waveform(name: str) -> None:
    clip = SAMPLES[name]()
    codec = open_model("starter:wavtokenizer")
    again_N = codec.resynthesize(clip).waveform[0]  # type: ignore[attr-defined]
    sound_N = clip.waveform[0, : len(again_N)]
    again_N = again_N[: len(sound_N)]
    scaled_N = (again_N @ sound_N) / (sound_N @ sound_N) * sound_N
    # SI-SDR; measured 6.2, 9.9 and 16.2 dB
    assert 10 * (scaled_N.square().sum() / (again_N - scaled_N).square().sum()).log10() > 5


def test_the_phrase_is_sung_on_its_notes() -> None:
    pytest.importorskip("torchcrepe", reason="extra eval")
    clip = sung_phrase()
    assert clip.waveform.abs().max() == pytest.approx(0.3)
    track = measure(clip.waveform, clip.sample_rate).pitch_track
    assert track is not None
    notes = track.view(len(MELODY), -1)[:, 20:40].nanmedian(dim=1).values
    # vibrato is a quarter of a semitone to either side
    assert torch.allclose(notes, torch.tensor([float(note) for note, _ in MELODY]), atol=0.4)


def test_bass_and_strings_play_their_notes() -> None:
    loop = SAMPLES["Drums and bass"]()
    eighth = len(loop.waveform[0]) // (2 * len(BASS))
    for place in (1, 3, 5, 7):  # where neither kick nor snare sounds
        note_N = loop.waveform[0, place * eighth : (place + 1) * eighth]
        played = strongest_hertz(note_N, loop.sample_rate)
        assert min(abs(played / float(hertz(BASS[place])) - harmonic) for harmonic in (1, 2)) < 0.05
    strings = SAMPLES["Plucked strings"]()
    every = round(0.3 * strings.sample_rate)
    first = strings.waveform[0, :every]
    played = strongest_hertz(first, strings.sample_rate) / float(hertz(CHORDS[0][0]))
    assert played == pytest.approx(round(played), abs=0.05)
