from __future__ import annotations

import importlib
import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import scipy.signal
import torch
from torch import Tensor

from evaluation import quality
from evaluation.quality import (
    dnsmos,
    mel_distance,
    mel_filters,
    pesq_wb,
    pitch_error,
    scores,
    sdr_db,
    stoi,
)
from hooks import read_clip
from hooks.errors import MissingExtraError
from steer.acoustics import change, measure

RATE = 24_000


def noise(seconds: float, level: float = 0.1, seed: int = 0) -> Tensor:
    return level * torch.randn(round(seconds * RATE), generator=torch.Generator().manual_seed(seed))


def harmonics(hertz: float, seconds: float = 1.0) -> Tensor:
    time_N = torch.arange(round(seconds * RATE)) / RATE
    return sum(0.2 / order * torch.sin(2 * torch.pi * hertz * order * time_N) for order in range(1, 11))  # type: ignore[return-value]


@pytest.fixture(scope="module")
def speech(recordings: Path) -> Tensor:
    """Three seconds of a sentence at `RATE`."""
    return read_clip(recordings / "ljspeech" / "LJ001-0015.flac").resampled(RATE).waveform[0, : 3 * RATE]


# --- mel distance ---


def mel_distance_in_numpy(x: np.ndarray, y: np.ndarray, rate: int) -> float:
    """The definition once more, band by band."""
    distances = []
    for n_fft, bands in ((512, 40), (1024, 80), (2048, 120)):
        window = scipy.signal.get_window("hann", n_fft)
        levels = []
        for wave in (x, y):
            padded = np.pad(wave, n_fft // 2, mode="reflect")
            starts = range(0, len(padded) - n_fft + 1, n_fft // 4)
            frames = np.stack([padded[start : start + n_fft] * window for start in starts])
            magnitude = np.abs(np.fft.rfft(frames)) * 4 / n_fft
            edges = 700 * (np.exp(np.linspace(0, math.log(1 + rate / 2 / 700), bands + 2)) - 1)
            bins = np.arange(n_fft // 2 + 1) * rate / n_fft
            columns = []
            for low, middle, high in zip(edges, edges[1:], edges[2:], strict=False):
                weight = np.interp(bins, [low, middle, high], [0, 1, 0], left=0, right=0)
                if weight.sum() <= 0.5:
                    weight = np.zeros(len(bins))
                    weight[round(middle / rate * n_fft)] = 1
                columns.append(magnitude @ (weight / weight.sum()))
            levels.append(20 * np.log10(np.stack(columns) + 1e-4))
        distances.append(np.abs(levels[0] - levels[1]).mean())
    return float(np.mean(distances))


@pytest.mark.parametrize("rate", [16_000, 24_000, 44_100])
def test_mel_distance_is_what_numpy_computes(rate: int) -> None:
    x, y = noise(0.5), scipy.signal.lfilter([1, 0.5], [1, -0.3], noise(0.5).numpy()) + noise(0.5, 0.01, 1).numpy()
    y = torch.from_numpy(y).float()
    wanted = mel_distance_in_numpy(x.numpy().astype(float), y.numpy().astype(float), rate)
    assert mel_distance(x, y, rate) == pytest.approx(wanted, abs=1e-4)


def test_mel_distance_of_speech_is_what_numpy_computes(speech: Tensor) -> None:
    y = speech + noise(3.0, 0.003)
    wanted = mel_distance_in_numpy(speech.numpy().astype(float), y.numpy().astype(float), RATE)
    assert wanted > 1
    assert mel_distance(speech, y, RATE) == pytest.approx(wanted, abs=1e-4)


def test_mel_distance_of_a_gain_is_that_gain() -> None:
    x = noise(0.5, level=1e3)  # so far above the floor that it adds nothing
    assert mel_distance(x, x, RATE) == 0
    assert mel_distance(x, 2 * x, RATE) == pytest.approx(20 * math.log10(2), abs=1e-4)
    assert mel_distance(2 * x, x, RATE) == mel_distance(x, 2 * x, RATE)


def test_mel_distance_below_the_floor_is_small() -> None:
    x = noise(0.5, level=1e-7)
    assert mel_distance(x, 2 * x, RATE) < 0.01


def test_mel_distance_of_few_samples() -> None:
    assert mel_distance(torch.ones(3), torch.ones(3), RATE) == 0
    assert mel_distance(torch.ones(3), torch.zeros(3), RATE) > 0


@pytest.mark.parametrize(("n_fft", "bands"), quality.RESOLUTIONS)
@pytest.mark.parametrize("rate", [8_000, 24_000, 48_000])
def test_mel_filters_are_means(n_fft: int, bands: int, rate: int) -> None:
    filters_FM = mel_filters(n_fft, bands, rate)
    assert filters_FM.shape == (n_fft // 2 + 1, bands)
    assert torch.allclose(filters_FM.sum(0), torch.ones(bands))
    assert (filters_FM >= 0).all()


# --- waveforms and levels ---


def test_sdr_is_the_ratio_of_energies_in_db() -> None:
    x, error = noise(0.1), noise(0.1, seed=1)
    error *= x.norm() / error.norm() / 10
    assert sdr_db(x, x + error) == pytest.approx(20.0, abs=1e-3)
    assert sdr_db(x, 0 * x) == 0


def changes(x: Tensor, y: Tensor) -> dict[str, float | None]:
    return scores(x, y, RATE, speech=False, pitched=False)


def test_level_loudness_and_centroid_of_a_gain() -> None:
    x = noise(1.0)
    found = changes(x, 2 * x)
    assert found["level_db"] == pytest.approx(6.0206, abs=1e-3)
    assert found["centroid_percent"] == pytest.approx(0, abs=1e-3)
    assert changes(x, 0 * x)["level_db"] == pytest.approx(-100, abs=0.2)  # down to -120
    assert changes(0 * x, x)["centroid_percent"] is None
    pytest.importorskip("pyloudnorm", reason="extra eval")
    assert found["lufs"] == pytest.approx(6.0206, abs=1e-3)
    assert changes(x[:1000], x[:1000])["lufs"] is None


def test_centroid_of_a_shifted_sine() -> None:
    time_N = torch.arange(RATE) / RATE
    low, high = (0.3 * torch.sin(2 * torch.pi * hertz * time_N) for hertz in (1000.0, 1200.0))
    assert changes(low, high)["centroid_percent"] == pytest.approx(20, abs=1)


# --- speech ---


def test_stoi_falls_with_noise_and_needs_half_a_second(speech: Tensor) -> None:
    pytest.importorskip("pystoi", reason="extra eval")
    values = [stoi(speech, speech + noise(3.0, level), RATE) for level in (1e-4, 0.05, 0.5)]
    assert values == sorted(values, reverse=True)  # type: ignore[type-var]
    assert values[0] is not None and values[0] > 0.99
    assert stoi(speech[:1000], speech[:1000], RATE) is None


@pytest.mark.filterwarnings("error")
def test_stoi_of_too_little_speech_is_none(speech: Tensor) -> None:
    pytest.importorskip("pystoi", reason="extra eval")
    short = torch.cat([speech[RATE : RATE + RATE // 10], torch.zeros(RATE)])
    assert stoi(short, short, RATE) is None


def test_pesq_of_the_same_speech_is_the_highest_that_there_is(speech: Tensor) -> None:
    pytest.importorskip("pesq", reason="extra eval")
    assert pesq_wb(speech, speech, RATE) == pytest.approx(4.644, abs=1e-3)
    worse = [pesq_wb(speech, speech + noise(3.0, level), RATE) for level in (0.001, 0.01, 0.1)]
    assert worse == sorted(worse, reverse=True)  # type: ignore[type-var]


def test_pesq_that_cannot_be_computed_is_none(speech: Tensor) -> None:
    pytest.importorskip("pesq", reason="extra eval")
    assert pesq_wb(speech[:1000], speech[:1000], RATE) is None
    assert pesq_wb(0 * speech, speech, RATE) is None
    assert pesq_wb(speech, 0 * speech, RATE) is None


def test_pesq_of_more_utterances_than_its_code_holds() -> None:
    """In one piece it would crash the process."""
    pytest.importorskip("pesq", reason="extra eval")
    on_N = (torch.arange(40 * RATE) / RATE) % 0.5 < 0.25
    bursts = noise(40.0) * on_N
    assert pesq_wb(bursts, bursts, RATE) == pytest.approx(4.644, abs=1e-3)


def test_dnsmos_falls_with_noise(speech: Tensor) -> None:
    pytest.importorskip("speechmos.dnsmos", reason="extra mos")
    assert quality.dnsmos_absent() == ""
    values = [dnsmos(speech + noise(3.0, level), RATE) for level in (0.0, 0.02, 0.2)]
    assert values == sorted(values, reverse=True)  # type: ignore[type-var]
    assert all(1 <= value <= 5 for value in values if value is not None)
    # what is beyond full scale is clipped and no error
    assert dnsmos(20 * speech, RATE) is not None
    assert dnsmos(speech[:0], RATE) is None


def test_dnsmos_without_its_extra_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(module: str, extra: str) -> ModuleType:
        raise MissingExtraError(f"{module} is not installed: pip install 'audiosteer[{extra}]'")

    monkeypatch.setattr(quality, "require", absent)
    assert dnsmos(noise(1.0), RATE) is None
    assert "audiosteer[mos]" in quality.dnsmos_absent()


# --- pitch ---


def test_pitch_error_of_tracks() -> None:
    x = torch.tensor([60.0] * 10 + [torch.nan] * 5)
    near, far, lost = x + 0.2, x + 1.0, x.clone()
    lost[:4] = torch.nan
    assert pitch_error(x, x) == quality.PitchError(0.0, 1.0)
    found = pitch_error(x, near)
    assert found is not None and found.median_cents == pytest.approx(20, abs=1e-3) and found.within_50 == 1
    found = pitch_error(x, far)
    assert found is not None and found.median_cents == pytest.approx(100) and found.within_50 == 0
    # frames that have lost their pitch are not near it
    assert pitch_error(x, lost) == quality.PitchError(0.0, 0.6)
    lost[:7] = torch.nan
    found = pitch_error(x, lost)
    assert found is not None and math.isnan(found.median_cents) and found.within_50 == pytest.approx(0.3)
    # a pitch where the reference has none is not counted
    assert pitch_error(x, x.nan_to_num(60.0)) == quality.PitchError(0.0, 1.0)
    assert pitch_error(x[8:], x[8:]) is None
    assert pitch_error(None, x) is None


def pitch_error_of(x: Tensor, y: Tensor) -> quality.PitchError | None:
    return pitch_error(*(measure(wave[None], RATE).pitch_track for wave in (x, y)))


def test_pitch_error_of_sounds() -> None:
    pytest.importorskip("torchcrepe", reason="extra eval")
    x = harmonics(220.0)
    assert pitch_error_of(x, x) == quality.PitchError(0.0, 1.0)
    found = pitch_error_of(x, harmonics(220.0 * 2 ** (1 / 12)))
    assert found is not None
    assert found.median_cents == pytest.approx(100, abs=15)
    assert found.within_50 < 0.1
    assert pitch_error_of(0 * x, x) is None


# --- all at once ---


def test_scores_are_those_of_the_single_measures(speech: Tensor) -> None:
    for module in ("pystoi", "pesq", "torchcrepe", "pyloudnorm"):
        pytest.importorskip(module, reason="extra eval")
    y = 0.8 * speech + noise(3.0, 0.002)
    found = scores(speech, y, RATE, speech=True, pitched=True)
    pitch = pitch_error_of(speech, y)
    before, after = (measure(wave[None], RATE) for wave in (speech, y))
    assert pitch is not None and before.lufs is not None and after.lufs is not None
    assert found == {
        "mel_db": mel_distance(speech, y, RATE),
        "stoi": stoi(speech, y, RATE),
        "pesq": pesq_wb(speech, y, RATE),
        "dnsmos": dnsmos(y, RATE),
        "sdr_db": sdr_db(speech, y),
        "level_db": pytest.approx(10 * math.log10(y.square().mean() / speech.square().mean()), abs=1e-4),
        "lufs": after.lufs - before.lufs,
        "centroid_percent": change(before, after)["brightness"],
        "pitch_cents": pitch.median_cents,
        "pitch_within_50": pitch.within_50,
    }
    other = scores(speech, y, RATE, speech=False, pitched=False)
    assert {name for name, value in other.items() if value is None} == {
        "stoi",
        "pesq",
        "dnsmos",
        "pitch_cents",
        "pitch_within_50",
    }


def test_a_missing_pesq_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str, package: str | None = None) -> ModuleType:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(MissingExtraError, match=r"audiosteer\[eval\]"):
        pesq_wb(noise(1.0), noise(1.0), RATE)
