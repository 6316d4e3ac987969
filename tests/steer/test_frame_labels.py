import math

import pytest
import torch
from torch import Tensor

from steer.frame_labels import FLOOR_DB, centroid_hz, hz_to_midi, loudness_db, mono, pitch_midi, windows

RATE, FRAME_RATE, FRAMES = 24_000, 75.0, 150


def tone(hertz: Tensor | float, amplitude: float = 0.5, harmonics: int = 1) -> Tensor:
    """Two seconds; `hertz` may change over time."""
    phase = 2 * math.pi * torch.cumsum(torch.as_tensor(hertz).double().expand(2 * RATE) / RATE, 0)
    return amplitude * sum(torch.sin(n * phase) / n for n in range(1, harmonics + 1)).float()  # type: ignore[union-attr]


def test_windows_lie_around_the_centres_of_frames() -> None:
    ramp = torch.arange(1.0, 101.0)
    rows = torch.cat(list(windows(ramp, 100, 10.0, 12, 5)))
    assert rows.shape == (12, 5)
    assert rows[0].tolist() == [4, 5, 6, 7, 8]  # centre 0.05 s: sample 5 counted from 0
    assert rows[9].tolist() == [94, 95, 96, 97, 98]
    assert rows[10].tolist() == [0] * 5  # behind the end


def test_long_sounds_are_done_in_blocks() -> None:
    ramp = torch.arange(50_000.0)
    blocks = list(windows(ramp, 1000, 100.0, 5000, 3))
    assert len(blocks) == 3
    assert torch.equal(torch.cat(blocks)[:, 1], (torch.arange(5000) + 0.5) * 10)


def test_loudness_of_a_tone() -> None:
    quiet, loud = (loudness_db(tone(440.0, amplitude), RATE, FRAME_RATE, FRAMES) for amplitude in (0.05, 0.5))
    inner = slice(3, -3)  # windows at the ends are half empty
    expected = 20 * math.log10(0.5 / math.sqrt(2))
    assert (loud[inner] - expected).abs().max() < 0.1  # a 40 ms window does not hold whole periods
    torch.testing.assert_close(loud[inner] - quiet[inner], torch.full((FRAMES - 6,), 20.0), atol=1e-3, rtol=0)
    assert loudness_db(torch.zeros(2 * RATE), RATE, FRAME_RATE, FRAMES).tolist() == [FLOOR_DB] * FRAMES


def test_loudness_follows_in_time() -> None:
    sound = tone(440.0)
    sound[:RATE] *= 0.1
    level = loudness_db(sound, RATE, FRAME_RATE, FRAMES)
    assert (level[5:70] < -25).all()
    assert (level[80:145] > -10).all()


def test_centroid_of_tones() -> None:
    for hertz in (500.0, 2000.0, 8000.0):
        centroid = centroid_hz(tone(hertz), RATE, FRAME_RATE, FRAMES)
        assert (centroid[3:-3] / hertz - 1).abs().max() < 0.05  # leakage of the window
    two = centroid_hz(tone(1000.0) + tone(3000.0), RATE, FRAME_RATE, FRAMES)
    assert float(two[3:-3].median()) == pytest.approx(2000, rel=0.02)
    assert centroid_hz(torch.zeros(2 * RATE), RATE, FRAME_RATE, FRAMES).isnan().all()


def test_channels_count_by_power_and_by_magnitude() -> None:
    sound = tone(440.0, harmonics=5)
    stereo = torch.stack([sound * 1.5, sound * 0.5])
    level = loudness_db(sound, RATE, FRAME_RATE, FRAMES) + 10 * math.log10((1.5**2 + 0.5**2) / 2)
    torch.testing.assert_close(loudness_db(stereo, RATE, FRAME_RATE, FRAMES), level, atol=1e-3, rtol=1e-4)
    centroid = centroid_hz(sound, RATE, FRAME_RATE, FRAMES)
    torch.testing.assert_close(centroid_hz(stereo, RATE, FRAME_RATE, FRAMES), centroid, atol=1e-2, rtol=1e-4)


def test_channels_out_of_phase_do_not_cancel() -> None:
    sound = tone(440.0, harmonics=5)
    stereo = torch.stack([sound, -sound])
    for measure in (loudness_db, centroid_hz):
        expected = measure(sound, RATE, FRAME_RATE, FRAMES)
        torch.testing.assert_close(measure(stereo, RATE, FRAME_RATE, FRAMES), expected, atol=1e-3, rtol=1e-4)
    assert torch.equal(mono(stereo), sound)


def test_pitch_of_tones_in_time() -> None:
    pytest.importorskip("torchcrepe", reason="extra eval: pitch by CREPE")
    hertz = torch.where(torch.arange(2 * RATE) < RATE, 220.0, 330.0)
    sound = tone(hertz, harmonics=6)
    sound[-RATE // 2 :] = 0
    pitch = pitch_midi(sound, RATE, FRAME_RATE, FRAMES)
    # CREPE's small network is good for about 10 cents
    assert (pitch[5:70] - hz_to_midi(220)).abs().max() < 0.2
    assert (pitch[80:107] - hz_to_midi(330)).abs().max() < 0.2
    assert pitch[118:].isnan().all()


def test_pitch_is_not_random_and_noise_has_none() -> None:
    pytest.importorskip("torchcrepe", reason="extra eval: pitch by CREPE")
    sound = tone(261.6, harmonics=4)
    once, again = (pitch_midi(sound, RATE, FRAME_RATE, FRAMES) for _ in range(2))
    assert torch.equal(once.nan_to_num(), again.nan_to_num())
    noise = pitch_midi(0.3 * torch.randn(2 * RATE), RATE, FRAME_RATE, FRAMES)
    assert noise.isnan().float().mean() > 0.8
