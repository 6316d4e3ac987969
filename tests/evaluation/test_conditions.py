from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from torch import Tensor

from evaluation.conditions import (
    FLOOR_DB,
    LEVEL_DB,
    RATE,
    channels,
    in_noise,
    long_files,
    rms,
    samples_of,
    through,
)
from evaluation.dataset import LabelledSound
from hooks.clip import Clip


def tone(hertz: float, seconds: float = 1.0, level: float = 0.2, text: str = "") -> LabelledSound:
    time_N = torch.arange(round(seconds * RATE)) / RATE
    wave_N = level * (2 * torch.pi * hertz * time_N).sin()
    labels = {"subset": "tones", **({"text": text} if text else {})}
    return LabelledSound(Clip(wave_N[None], RATE), f"tones/{hertz:g}", labels)


def level_at(samples_N: Tensor, hertz: float) -> float:
    """Amplitude of a tone of a whole number of periods a second, of one second of sound."""
    return float(2 * torch.fft.rfft(samples_N[:RATE]).abs()[round(hertz)] / RATE)


@pytest.mark.parametrize("snr_db", [20.0, 0.0, -5.0])
def test_noise_has_the_ratio_and_speech_stays(snr_db: float) -> None:
    (mixed,) = in_noise([tone(300)], [tone(2000, seconds=0.3, level=0.01)], snr_db)
    samples_N = samples_of(mixed)
    assert len(samples_N) == RATE and mixed.name == f"tones/300 (SNR {snr_db:g} dB)"
    # the noise repeats each 0.3 s, in which 2000 Hz has whole periods
    ratio_db = 20 * np.log10(level_at(samples_N, 300) / level_at(samples_N, 2000))
    assert ratio_db == pytest.approx(snr_db, abs=0.01)
    assert level_at(samples_N, 300) == pytest.approx(0.2, abs=1e-4)


def test_mixtures_are_drawn_by_name_and_seed() -> None:
    noises = [tone(hertz) for hertz in (1000, 1500, 2500, 3000)]
    first, again = (samples_of(in_noise([tone(300)], noises, 0.0)[0]) for _ in range(2))
    assert torch.equal(first, again)
    others = [samples_of(in_noise([tone(300)], noises, 0.0, seed)[0]) for seed in range(1, 6)]
    assert any(not torch.equal(first, other) for other in others)


def test_channels() -> None:
    known = channels()
    assert ("MP3 32 kbit/s" in known) == (shutil.which("ffmpeg") is not None)
    low, high = tone(1000), tone(6000)
    for sound, kept in ((low, 0.2), (high, 0.0)):
        (narrow,) = through([sound], "8 kHz", known["8 kHz"])
        assert level_at(samples_of(narrow), 1000 if sound is low else 6000) == pytest.approx(kept, abs=0.005)
        assert len(samples_of(narrow)) == RATE
    levels = [rms(samples_of(one)) for one in through([low, tone(500, level=0.01)], "x", known["same level"])]
    assert [20 * float(level.log10()) for level in levels] == pytest.approx([LEVEL_DB] * 2, abs=0.01)
    (floor,) = through([tone(1000, level=0.0)], "x", known["noise floor"])
    assert 20 * float(rms(samples_of(floor)).log10()) == pytest.approx(FLOOR_DB, abs=0.2)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="MP3 is coded by ffmpeg")
def test_mp3_keeps_the_sound() -> None:
    (coded,) = through([tone(1000, seconds=2.5)], "x", channels()["MP3 32 kbit/s"])
    assert level_at(samples_of(coded)[RATE // 2 :], 1000) == pytest.approx(0.2, rel=0.1)  # 32 kbit/s


def test_long_files_hold_every_clip_once_and_know_where_speech_is() -> None:
    speech = [tone(300 + n, 2.0, text=f"word{n}") for n in range(6)]
    silent = [tone(3000 + n, 3.0) for n in range(6)]
    files = long_files(speech, silent, seconds=12.0)
    assert len(files) >= 2
    words = " ".join(one.labels["text"] for one in files).split()
    assert len(words) == len(set(words)) and set(words) <= {f"word{n}" for n in range(6)}
    for one in files:
        samples_N = samples_of(one)
        assert len(one.intervals or ()) == len(one.labels["text"].split())
        for (start_s, end_s, label), word in zip(one.intervals or (), one.labels["text"].split(), strict=True):
            part_N = samples_N[round(start_s * RATE) : round(end_s * RATE)]
            assert (label, len(part_N)) == ("speech", 2 * RATE)
            assert level_at(part_N, 300 + int(word[4:])) == pytest.approx(0.2, abs=1e-3)
