"""EEG files: what is recorded at one channel, filtered, cut to the sound, at one rate and in one unit.

Read are `.mat` (as Broderick et al. 2018 publish theirs: `eegData` [T, C], `fs`, and `mastoids` [T, M] where there are
any; not version 7.3), `.npz` (`eeg` [T, C], `fs`, `channels`), and what MNE reads (.fif, .edf, .bdf, .set, .vhdr, ...).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np

from evaluation.brain import BrainError
from hooks.errors import one_line, require

Reference = Literal["mastoids", "average", "none"]
MASTOIDS = ("M1", "M2", "TP9", "TP10", "EXG1", "EXG2")
BIOSEMI = tuple(f"{part}{number}" for part in "ABCD" for number in range(1, 33))
"""Channels of BioSemi's cap of 128 electrodes, in their order."""
PLACES = {"Pz": "A19", "Cz": "A1", "Fz": "C21", "Oz": "A23"}
"""Where on that cap electrodes of the 10-20 system are."""
ORDER = 4
"""Of the Butterworth filter, which runs forwards and backwards."""
MISSING_SHARE = 0.05
"""How much of a sound's end may lack EEG."""


@dataclass(frozen=True, eq=False)
class Recording:
    """EEG [C, T] at `rate` Hz; `mastoids` [M, T], if they are stored beside it."""

    eeg_CT: np.ndarray
    rate: float
    channels: tuple[str, ...]
    mastoids_MT: np.ndarray | None = None

    def channel(self, name: str, path: Path) -> int:
        """Raises BrainError if there is none of that name."""
        for wanted in (name, PLACES.get(name, name)):
            if wanted in self.channels:
                return self.channels.index(wanted)
        shown = ", ".join(self.channels[:8]) + (", ..." if len(self.channels) > 8 else "")
        raise BrainError(f"{path}: no channel {name!r}; there are {len(self.channels)}: {shown}")

    def referenced(self, reference: Reference) -> np.ndarray:
        """[C, T], with the mean of the mastoids, where they are known, or of all channels taken off."""
        eeg_CT = np.asarray(self.eeg_CT, dtype=np.float64)
        if reference == "average":
            return eeg_CT - eeg_CT.mean(0)
        if reference == "mastoids":
            named = [index for index, name in enumerate(self.channels) if name in MASTOIDS]
            if self.mastoids_MT is not None and len(self.mastoids_MT):
                return eeg_CT - np.asarray(self.mastoids_MT, dtype=np.float64).mean(0)
            if named:
                return eeg_CT - eeg_CT[named].mean(0)
        return eeg_CT


def read_eeg(path: Path) -> Recording:
    """The EEG in a file.

    Raises:
        BrainError: it is missing, cannot be read, or does not hold what it should.
        MissingExtraError: scipy or MNE, which the format needs, is not installed.
    """
    if not path.is_file():
        raise BrainError(f"{path}: there is no such EEG file")
    recording = OWN_READERS.get(path.suffix.lower(), read_mne)(path)
    eeg_CT, rate = recording.eeg_CT, recording.rate
    if eeg_CT.ndim != 2 or not eeg_CT.size or len(recording.channels) != len(eeg_CT):
        raise BrainError(f"{path}: EEG must be [samples, channels] with a name for each channel")
    if not np.isfinite(rate) or rate <= 0:
        raise BrainError(f"{path}: the sampling rate is {rate:g} Hz")
    return recording


def read_mat(path: Path) -> Recording:
    io = require("scipy.io", "eeg")
    try:
        values = io.loadmat(path, squeeze_me=False)
    except NotImplementedError as error:
        raise BrainError(f"{path}: is of MATLAB version 7.3; save it with -v7") from error
    except Exception as error:  # scipy raises what its parser stumbles over
        raise BrainError(f"{path}: cannot be read as a MATLAB file ({one_line(error)})") from error
    eeg_TC, rate = of_keys(path, values, "eegData")
    mastoids = values.get("mastoids")
    names = BIOSEMI if eeg_TC.shape[-1] == len(BIOSEMI) else numbered(eeg_TC)
    return Recording(eeg_TC.T, rate, names, None if mastoids is None else np.asarray(mastoids).T)


def read_npz(path: Path) -> Recording:
    try:
        with np.load(path, allow_pickle=False) as file:
            values = {name: file[name] for name in file.files if name in ("eeg", "fs", "channels")}
    except Exception as error:  # zipfile and numpy raise many kinds
        raise BrainError(f"{path}: cannot be read as an .npz file ({one_line(error)})") from error
    eeg_TC, rate = of_keys(path, values, "eeg")
    names = tuple(str(name) for name in np.ravel(values["channels"])) if "channels" in values else numbered(eeg_TC)
    return Recording(eeg_TC.T, rate, names)


def of_keys(path: Path, values: dict[str, Any], key: str) -> tuple[np.ndarray, float]:
    if key not in values or "fs" not in values:
        raise BrainError(f"{path}: needs {key} [samples, channels] and fs (the sampling rate in Hz)")
    eeg_TC, rate = np.asarray(values[key]), np.ravel(values["fs"])
    if eeg_TC.ndim != 2 or not np.issubdtype(eeg_TC.dtype, np.number) or rate.size != 1:
        raise BrainError(f"{path}: needs {key} [samples, channels] and fs (the sampling rate in Hz) as numbers")
    return eeg_TC, float(rate[0])


def numbered(eeg_TC: np.ndarray) -> tuple[str, ...]:
    return tuple(str(number) for number in range(1, eeg_TC.shape[-1] + 1))


def read_mne(path: Path) -> Recording:
    mne = require("mne", "eeg")
    try:
        raw = mne.io.read_raw(path, preload=True, verbose="error")
    except Exception as error:  # each of MNE's readers has its own
        raise BrainError(f"{path}: MNE cannot read it ({one_line(error)})") from error
    return Recording(raw.get_data(), float(raw.info["sfreq"]), tuple(raw.ch_names))


OWN_READERS = {".mat": read_mat, ".npz": read_npz}
"""By suffix; MNE reads all others."""


# --- what is made of it ---


def excerpt(
    path: Path,
    channels: Sequence[str],
    start_s: float,
    length_s: float,
    *,
    rate: float,
    band: tuple[float, float],
    reference: Reference = "mastoids",
) -> np.ndarray:
    """EEG [C, T] of a sound that starts `start_s` seconds into the recording, at `rate` Hz: referenced, filtered over
    the whole recording, cut, and scaled to median 0 and interquartile range 1.

    Raises:
        BrainError: as `read_eeg`; an unknown channel, a rate too low for the band, EEG that ends before the sound,
            or a channel that is constant or not finite.
    """
    recording = read_eeg(path)
    if recording.rate <= 2 * band[1]:
        raise BrainError(f"{path}: the sampling rate is {recording.rate:g} Hz, too low for a band up to {band[1]:g} Hz")
    chosen = [recording.channel(name, path) for name in channels]
    eeg_CT = recording.referenced(reference)[chosen]
    if not np.isfinite(eeg_CT).all():
        raise BrainError(f"{path}: holds values that are not finite")
    whole_s = eeg_CT.shape[1] / recording.rate
    if whole_s - start_s < (1 - MISSING_SHARE) * length_s:
        raise BrainError(
            f"{path}: {max(whole_s - start_s, 0):.1f} s of EEG from {start_s:g} s on (at {recording.rate:g} Hz), "
            f"and the sound lasts {length_s:.1f} s; check fs and start_s"
        )
    # before the filter, which leaves rounding noise of a constant
    first, last = (round(at_s * recording.rate) for at_s in (start_s, start_s + length_s))
    if not np.ptp(recording.eeg_CT[chosen, first:last], axis=1).all():
        raise BrainError(f"{path}: a channel is constant")
    cut_CT = resampled(band_passed(eeg_CT, recording.rate, band)[:, first:last], recording.rate, rate)
    return scaled(cut_CT)


def band_passed(eeg_CT: np.ndarray, rate: float, band: tuple[float, float]) -> np.ndarray:
    """Without a shift in time: which smears each response to both sides, by about 100 ms at 1 to 8 Hz."""
    signal = require("scipy.signal", "eeg")
    filters = signal.butter(ORDER, band, "bandpass", fs=rate, output="sos")
    # the default is too short for a filter that rings for a second
    length = min(eeg_CT.shape[-1] - 1, round(3 * rate / band[0]))
    return np.ascontiguousarray(signal.sosfiltfilt(filters, eeg_CT, axis=-1, padlen=length))


def resampled(eeg_CT: np.ndarray, rate: float, wanted: float) -> np.ndarray:
    if rate == wanted:
        return eeg_CT
    signal = require("scipy.signal", "eeg")
    ratio = Fraction(wanted / rate).limit_denominator(10_000)
    return signal.resample_poly(eeg_CT, ratio.numerator, ratio.denominator, axis=-1)


def scaled(eeg_CT: np.ndarray) -> np.ndarray:
    """Median 0 and interquartile range 1 by channel."""
    low_C, middle_C, high_C = np.percentile(eeg_CT, [25, 50, 75], axis=-1)
    return (eeg_CT - middle_C[:, None]) / np.maximum(high_C - low_C, 1e-300)[:, None]
