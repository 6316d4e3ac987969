"""Files of EEG, and what is made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evaluation.brain import BrainError
from evaluation.eeg import BIOSEMI, band_passed, excerpt, read_eeg

io = pytest.importorskip("scipy.io", reason="extra eeg")
BAND = (1.0, 8.0)


def noise(seconds: float, channels: int, rate: float = 128.0, seed: int = 0) -> np.ndarray:
    """[T, C]."""
    return np.random.default_rng(seed).standard_normal((round(seconds * rate), channels))


def test_a_mat_file_of_broderick(tmp_path: Path) -> None:
    eeg, mastoids = noise(5, 128), noise(5, 2, seed=1)
    io.savemat(tmp_path / "a.mat", {"eegData": eeg, "mastoids": mastoids, "fs": 128})
    recording = read_eeg(tmp_path / "a.mat")
    assert (recording.rate, recording.channels) == (128, BIOSEMI)
    assert recording.channel("Pz", tmp_path) == BIOSEMI.index("A19") == recording.channel("A19", tmp_path)
    np.testing.assert_allclose(recording.referenced("none"), eeg.T)
    np.testing.assert_allclose(recording.referenced("mastoids"), eeg.T - mastoids.mean(1))
    assert np.abs(recording.referenced("average").mean(0)).max() < 1e-12


def test_an_npz_file(tmp_path: Path) -> None:
    eeg = noise(5, 3, 64).astype(np.float32)
    np.savez(tmp_path / "a.npz", eeg=eeg, fs=64, channels=["Fz", "M1", "M2"])
    recording = read_eeg(tmp_path / "a.npz")
    assert (recording.rate, recording.channels) == (64, ("Fz", "M1", "M2"))
    np.testing.assert_allclose(recording.referenced("mastoids")[0], eeg[:, 0] - eeg[:, 1:].mean(1), atol=1e-6)
    np.savez(tmp_path / "b.npz", eeg=eeg, fs=64)
    assert read_eeg(tmp_path / "b.npz").channels == ("1", "2", "3")


def test_what_mne_reads(tmp_path: Path) -> None:
    mne = pytest.importorskip("mne", reason="extra eeg")
    eeg = 1e-5 * noise(5, 2, 256)
    raw = mne.io.RawArray(eeg.T, mne.create_info(["Pz", "Cz"], 256, "eeg"), verbose="error")
    raw.save(tmp_path / "a_raw.fif", fmt="double", verbose="error")
    recording = read_eeg(tmp_path / "a_raw.fif")
    assert (recording.rate, recording.channels) == (256, ("Pz", "Cz"))
    np.testing.assert_allclose(recording.eeg_CT, eeg.T, atol=1e-12)


def test_an_excerpt(tmp_path: Path) -> None:
    """Filtered as a whole, cut, in its own unit; at another rate the same values."""
    eeg = noise(40, 2)
    np.savez(tmp_path / "a.npz", eeg=eeg, fs=128, channels=["a", "b"])
    cut = excerpt(tmp_path / "a.npz", ["b"], 10.0, 20.0, rate=128, band=BAND)
    assert cut.shape == (1, 20 * 128)
    expected = band_passed(eeg.T[1:], 128, BAND)[:, 1280:3840]
    low, middle, high = np.percentile(expected, [25, 50, 75])
    np.testing.assert_allclose(cut, (expected - middle) / (high - low))
    slower = excerpt(tmp_path / "a.npz", ["b"], 10.0, 20.0, rate=64, band=BAND)
    # the ends lack what the filter of the resampling would need
    np.testing.assert_allclose(slower[0, 32:-32], cut[0, ::2][32:-32], atol=0.05)


def test_the_filter_keeps_its_band_and_the_time() -> None:
    time = np.arange(60 * 128) / 128
    inside, above, below = (np.sin(2 * np.pi * hertz * time) for hertz in (3.0, 20.0, 0.1))
    filtered = band_passed(np.stack([inside + above + below]), 128, BAND)[0]
    middle = slice(10 * 128, -10 * 128)
    np.testing.assert_allclose(filtered[middle], inside[middle], atol=0.01)


def failing(path: Path, channel: str = "1", start_s: float = 0.0, length_s: float = 5.0, rate: float = 128) -> str:
    with pytest.raises(BrainError) as error:
        excerpt(path, [channel], start_s, length_s, rate=rate, band=BAND)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_cannot_be_used(tmp_path: Path) -> None:
    def saved(**values: object) -> Path:
        np.savez(tmp_path / "a.npz", **values)  # type: ignore[arg-type]
        return tmp_path / "a.npz"

    good = noise(5, 2)
    assert "there is no such EEG file" in failing(tmp_path / "gone.mat")
    assert "no channel 'Pz'; there are 2: 1, 2" in failing(saved(eeg=good, fs=128), "Pz")
    assert "needs eeg [samples, channels] and fs" in failing(saved(eeg=good))
    assert "needs eeg [samples, channels] and fs" in failing(saved(eeg=good[:, 0], fs=128))
    assert "with a name for each channel" in failing(saved(eeg=good, fs=128, channels=["a"]))
    assert "the sampling rate is 0 Hz" in failing(saved(eeg=good, fs=0))
    assert "12 Hz, too low for a band up to 8 Hz" in failing(saved(eeg=good, fs=12))
    # a wrong rate: the recording seems to end before the sound
    path = saved(eeg=good, fs=256)
    assert "2.5 s of EEG from 0 s on (at 256 Hz), and the sound lasts 5.0 s; check fs and start_s" in failing(path)
    assert "2.0 s of EEG from 3 s on" in failing(saved(eeg=good, fs=128), start_s=3.0)
    assert "not finite" in failing(saved(eeg=np.full((640, 2), np.nan), fs=128))
    assert "a channel is constant" in failing(saved(eeg=np.ones((640, 2)), fs=128))
    (tmp_path / "a.npz").write_bytes(b"PK")
    assert "cannot be read as an .npz file" in failing(tmp_path / "a.npz")
    (tmp_path / "a.mat").write_bytes(b"x" * 200)
    assert "cannot be read as a MATLAB file" in failing(tmp_path / "a.mat")
    np.savez(tmp_path / "b.npz", eeg=np.array([object()]), fs=128)  # never unpickled
    assert "cannot be read as an .npz file" in failing(tmp_path / "b.npz")


def test_a_damaged_file_for_mne(tmp_path: Path) -> None:
    pytest.importorskip("mne", reason="extra eeg")
    (tmp_path / "a.edf").write_bytes(b"0" * 300)
    assert "MNE cannot read it" in failing(tmp_path / "a.edf")
    (tmp_path / "a.xyz").write_bytes(b"")
    assert "MNE cannot read it" in failing(tmp_path / "a.xyz")
