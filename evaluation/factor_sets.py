"""Factors of sounds, such as the mean pitch of a clip: eGeMAPS by openSMILE, a free set of 24, or a CSV file's columns.

eGeMAPS (88 functionals, version 02) comes by the package opensmile, the extra `egemaps`. Its licence, audEERING's
research licence, allows no commercial use, although its package metadata says MIT. `basic` has no such limit.
"""

from __future__ import annotations

import csv
import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evaluation.config import EvaluationError
from evaluation.dataset import LabelledSound
from evaluation.passes import OFTEN, Kept
from evaluation.pooled import fingerprint_of
from evaluation.report import Progress
from hooks import Clip
from hooks.clip import as_clip
from hooks.errors import require
from steer.acoustics import pitch_track

EGEMAPS, BASIC = "egemaps", "basic"
LICENCE = (
    "eGeMAPS is computed by openSMILE, which is licensed by audEERING for research and private use only, not for "
    "commercial products; --factors basic is free"
)
CONSTANT = 1e-9
"""A factor whose deviation is less than this share of its size is constant."""


@dataclass(frozen=True)
class Factors:
    """`values` [M, F] of clips; `families` has one for each factor, and `notes` are sentences for the user."""

    names: list[str]
    families: list[str]
    values: np.ndarray
    notes: list[str]

    def varying(self) -> Factors:
        """Without constant factors, which are named in the notes.

        Raises:
            EvaluationError: all are constant.
        """
        spread_F, size_F = self.values.std(0), np.abs(self.values).max(0)
        kept = np.flatnonzero(spread_F > CONSTANT * np.maximum(size_F, 1e-30))
        if not len(kept):
            raise EvaluationError("all factors are constant over these clips")
        left = [name for number, name in enumerate(self.names) if number not in set(kept)]
        notes = [*self.notes, *([f"constant factors are left out: {', '.join(left)}"] if left else [])]
        names, families = ([some[number] for number in kept] for some in (self.names, self.families))
        return Factors(names, families, self.values[:, kept], notes)


def factors_of(
    sounds: Sequence[LabelledSound], which: str, folder: Path | None = None, progress: Progress = iter
) -> Factors:
    """`egemaps`, `basic`, or the columns of a CSV file. What was computed is kept in `folder`.

    Raises:
        EvaluationError: a clip that is too short, or a CSV file that lacks a clip or a number.
        MissingExtraError: opensmile or librosa is not installed.
        AudioFileError: a clip that cannot be read.
    """
    if which == EGEMAPS:
        require("opensmile", "egemaps")
        measure, names, families = egemaps_of, egemaps_names(), [egemaps_family(name) for name in egemaps_names()]
        notes = [LICENCE]
    elif which == BASIC:
        measure, names, families, notes = basic_of, list(BASIC_FAMILIES), list(BASIC_FAMILIES.values()), []
    else:
        return factors_in(Path(which), sounds)
    package = version("opensmile" if which == EGEMAPS else "librosa")
    kept = Kept(folder / f"factors-{which}.safetensors" if folder else None, json.dumps([which, package, names]))
    values_MF = measured(sounds, measure, kept, progress)
    if which == BASIC:
        values_MF, more = without_gaps(values_MF, names)
        notes = more
    return Factors(names, families, values_MF, notes)


def measured(
    sounds: Sequence[LabelledSound], measure: Callable[[Clip, str], np.ndarray], kept: Kept, progress: Progress
) -> np.ndarray:
    """[M, F], computed or found in `kept`."""
    keys = [fingerprint_of(sound.source) for sound in sounds]
    missing = [(key, sound) for key, sound in dict(zip(keys, sounds, strict=True)).items() if key not in kept.known]
    for number, (key, sound) in enumerate(progress(missing) if missing else (), 1):
        clip = as_clip(sound.source)
        kept.known[key] = torch.tensor(measure(clip.mixed(1), sound.name))
        if number % OFTEN == 0 or number == len(missing):
            kept.write()
    return torch.stack([kept.known[key] for key in keys]).double().numpy()


# --- eGeMAPS ---


@cache
def smile() -> Any:
    opensmile = require("opensmile", "egemaps")
    return opensmile.Smile(
        feature_set=opensmile.FeatureSet.eGeMAPSv02, feature_level=opensmile.FeatureLevel.Functionals
    )


def egemaps_names() -> list[str]:
    return list(smile().feature_names)


def egemaps_of(clip: Clip, name: str) -> np.ndarray:
    """The 88 functionals of a clip. Raises EvaluationError for one that is too short (under about 0.06 s)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = smile().process_signal(clip.waveform[0].numpy(), clip.sample_rate)
    values_F = found.to_numpy(dtype=np.float64)[0]
    if not np.isfinite(values_F).all():
        raise EvaluationError(f"{name}: too short for eGeMAPS ({clip.seconds:.3f} s)")
    return values_F


FAMILIES: Mapping[str, Callable[[str], bool]] = {
    "formants": lambda name: name.startswith(("F1", "F2", "F3")),
    "pitch": lambda name: "F0" in name,
    "quality": lambda name: name.startswith(("shimmer", "jitter", "HNR")),
    "loudness": lambda name: name.startswith(("loudness", "equivalentSoundLevel")),
    "rhythm": lambda name: "voiced" in name.lower(),
    "spectral": lambda name: name.lower().startswith(("slope", "spectral", "alpharatio", "hammarberg")),
    "mfcc": lambda name: name.startswith("mfcc"),
}
"""Families by name, the first that fits, in the order of the paper's code."""


def egemaps_family(name: str) -> str:
    return next((family for family, fits in FAMILIES.items() if fits(name)), "other")


# --- the free set ---

WINDOW_S, STEP_S = 0.04, 0.01
PITCH_FRAMES = 50
HNR_RANGE = (60.0, 500.0)
"""Hz, between which a period is looked for."""
TRACKS = {
    "level dB": "loudness",
    "centroid": "spectral",
    "roll-off": "spectral",
    "flatness": "spectral",
    "zero crossings": "spectral",
    "pitch": "pitch",
    "HNR": "quality",
    **{f"MFCC {number}": "mfcc" for number in range(1, 5)},
}
BASIC_FAMILIES = {f"{track}, {part}": family for track, family in TRACKS.items() for part in ("mean", "deviation")} | {
    "voiced share": "rhythm",
    "duration": "rhythm",
}
"""{factor: its family}: 24."""


def basic_of(clip: Clip, name: str) -> np.ndarray:
    """Of a clip's frames of 40 ms, and of the pitch by CREPE (NaN without any). Raises EvaluationError for one that is
    too short (under 40 ms)."""
    librosa = require("librosa", "eval")
    rate, y_N = clip.sample_rate, clip.waveform[0].numpy()
    window, step = round(WINDOW_S * rate), max(1, round(STEP_S * rate))
    if len(y_N) < window:
        raise EvaluationError(f"{name}: too short for factors ({clip.seconds:.3f} s, needed are {WINDOW_S} s)")
    frames_TW = np.lib.stride_tricks.sliding_window_view(y_N, window)[::step].astype(np.float64)
    spectrum_KT = np.abs(np.fft.rfft(frames_TW * np.hanning(window), axis=1)).T
    mel = librosa.feature.melspectrogram(S=np.square(spectrum_KT), sr=rate, n_fft=window, n_mels=26)
    pitch_T = pitch_track(clip.waveform, rate, frame_rate=min(100.0, PITCH_FRAMES / clip.seconds))
    if pitch_T is None:
        require("torchcrepe", "eval")
        raise EvaluationError(f"{name}: its pitch could not be read")
    voiced_V = pitch_T[~pitch_T.isnan()].double().numpy()
    frequencies = {"S": spectrum_KT, "sr": rate, "n_fft": window}
    tracks = {
        "level dB": 20 * np.log10(np.sqrt(np.square(frames_TW).mean(1)) + 1e-6),
        "centroid": librosa.feature.spectral_centroid(**frequencies)[0],
        "roll-off": librosa.feature.spectral_rolloff(**frequencies)[0],
        "flatness": librosa.feature.spectral_flatness(S=spectrum_KT)[0],
        "zero crossings": (np.diff(np.signbit(frames_TW), axis=1)).mean(1),
        "pitch": voiced_V,
        "HNR": hnr_db(frames_TW, rate),
        **dict(zip(list(TRACKS)[-4:], librosa.feature.mfcc(S=librosa.power_to_db(mel), n_mfcc=5)[1:], strict=True)),
    }
    values = [part(track) if len(track) else math.nan for track in tracks.values() for part in (np.mean, np.std)]
    return np.array([*values, len(voiced_V) / max(len(pitch_T), 1), clip.seconds], dtype=np.float64)


def hnr_db(frames_TW: np.ndarray, rate: int) -> np.ndarray:
    """Harmonics over noise [T] in dB, from the largest normalised autocorrelation r: 10 log10 r / (1 - r)."""
    size = frames_TW.shape[1]
    centred_TW = frames_TW - frames_TW.mean(1, keepdims=True)
    spectrum_TK = np.abs(np.fft.rfft(centred_TW, 2 * size, axis=1)) ** 2
    # a lag leaves fewer samples that overlap
    r_TW = np.fft.irfft(spectrum_TK, axis=1)[:, :size] / np.arange(size, 0, -1) * size
    first, last = int(rate / HNR_RANGE[1]), min(int(rate / HNR_RANGE[0]), size * 3 // 4)
    best_T = r_TW[:, first : last + 1].max(1) / np.maximum(r_TW[:, 0], 1e-12)
    best_T = best_T.clip(1e-3, 1 - 1e-3)
    return 10 * np.log10(best_T / (1 - best_T))


def without_gaps(values_MF: np.ndarray, names: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Clips without a pitch get the mean of the others, which is noted."""
    gaps_F = np.isnan(values_MF).sum(0)
    if not gaps_F.any():
        return values_MF, []
    means_F = [float(np.nanmean(column)) if (~np.isnan(column)).any() else 0.0 for column in values_MF.T]
    notes = [
        f"{count} clips without {name.partition(',')[0]} have the mean of the others there: {name}"
        for name, count in zip(names, gaps_F, strict=True)
        if count
    ]
    return np.where(np.isnan(values_MF), means_F, values_MF), notes


# --- a file's ---


def factors_in(path: Path, sounds: Sequence[LabelledSound]) -> Factors:
    """Of a CSV file with a column `path` (subset/path, or the path in its manifest) and columns of numbers; each column
    is a family of its own.

    Raises:
        EvaluationError: it cannot be read, lacks a clip, or has a cell that is not a number.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise EvaluationError(
            f"--factors {path}: cannot be read ({getattr(error, 'strerror', None) or error}); "
            f"there are {EGEMAPS} and {BASIC}, and CSV files"
        ) from error
    names = [name for name in (rows[0] if rows else {}) if name and name != "path"]
    if not names or "path" not in rows[0]:
        raise EvaluationError(f"--factors {path}: needs rows with the column path and columns of numbers")
    by_path = {row["path"]: row for row in rows}
    values = []
    for sound in sounds:
        row = by_path.get(sound.name) or by_path.get(sound.name.partition("/")[2])
        if row is None:
            raise EvaluationError(f"--factors {path}: has no row for {sound.name}")
        try:
            numbers = [float(row[name]) for name in names]
        except (TypeError, ValueError):
            numbers = [math.nan]
        if not all(map(math.isfinite, numbers)):
            raise EvaluationError(f"--factors {path}: the row of {sound.name} has a cell that is not a finite number")
        values.append(numbers)
    return Factors(names, list(names), np.array(values), [])
