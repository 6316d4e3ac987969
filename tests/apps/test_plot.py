from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from apps import plot
from apps.plot import curves_of, draw, drawn
from apps.spectrogram import spectrogram_db
from hooks import Clip, write_clip

RATE = 16_000


def sine(hertz: float, amplitude: float = 0.5) -> torch.Tensor:
    return amplitude * torch.sin(2 * math.pi * hertz * torch.arange(RATE) / RATE)


def test_curves_are_in_the_units_they_say() -> None:
    curves = curves_of(sine(1000), sine(2000, 0.25), RATE)
    middle = slice(20, -20)
    (_, loud), (_, soft) = curves["loudness (dB)"]
    # a sine of amplitude a has a power of a² / 2; windows cut its ends by less than this
    assert float(loud[middle].mean()) == pytest.approx(20 * math.log10(0.5) - 3.01, abs=0.05)
    assert float(loud[middle].mean() - soft[middle].mean()) == pytest.approx(6.02, abs=0.05)
    (_, low), (_, high) = curves["centroid (Hz)"]
    # leakage of the window reaches a little further up than down
    assert float(low[middle].mean()) == pytest.approx(1000, rel=0.02)
    assert float(high[middle].mean()) == pytest.approx(2000, rel=0.02)


def test_spectrogram_rows_follow_the_mel_axis() -> None:
    low, high = (int(spectrogram_db(sine(hertz), RATE).mean(1).argmax()) for hertz in (500, 4000))
    # mel(500) / mel(8000) = 0.214, mel(4000) / mel(8000) = 0.756, of 160 rows
    assert low == pytest.approx(0.214 * 160, abs=1.5)
    assert high == pytest.approx(0.756 * 160, abs=1.5)


def test_silence_and_short_sounds_are_drawn() -> None:
    pytest.importorskip("matplotlib", reason="pictures are drawn by matplotlib")
    for sound in (torch.zeros(RATE), torch.zeros(10)):
        figure = draw(sound, sound, RATE, 0.0, [(0.1, 0.2)], ("a", "b"))
        assert len(figure.axes) == 8  # two waveforms, two spectrograms, their colours, three curves


def test_of_a_long_sound_the_edited_stretch_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib", reason="pictures are drawn by matplotlib (extra eval)")
    monkeypatch.setattr(plot, "SHOWN_S", 1.0)  # of a minute the pitch takes half a minute
    write_clip(Clip(sine(300)[None, :800].repeat(1, 25), 8_000), tmp_path / "a.wav")  # 2.5 s
    shown = {
        None: (0.0, 1.0),
        (1.5, 1.7): (1.0, 2.0),
        (2.3, 2.4): (1.5, 2.5),
    }
    for span, limits in shown.items():
        figure = drawn(tmp_path / "a.wav", tmp_path / "a.wav", [span] if span else None)
        assert figure.axes[0].get_xlim() == pytest.approx(limits, abs=1e-6)
