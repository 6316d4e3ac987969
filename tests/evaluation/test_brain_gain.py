"""What explains the EEG beyond the envelope, and what does not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from evaluation.brain import BrainError, Study, protocol
from evaluation.brain_gain import baseline, circular_moments, drift, gains, joint, without
from evaluation.eeg_simulation import Planted, responses, simulated, sparse_features
from evaluation.trf import Lags, moments

pytest.importorskip("scipy", reason="extra eeg")
RATE = 64.0
RUNS = {str(run): int(120 * RATE) for run in range(5)}
LAGS = Lags.between(0, 0.5, RATE)


@pytest.fixture(scope="module")
def sound() -> dict[str, Tensor]:
    """A smooth envelope and its onset."""
    rng = np.random.default_rng(0)
    found = {}
    for run, samples in RUNS.items():
        drive = np.convolve(rng.standard_normal(samples), np.hanning(13), "same")
        envelope = np.maximum(drive, 0) / drive.max()
        onset = np.maximum(np.diff(envelope, prepend=0), 0)
        found[run] = torch.from_numpy(np.stack([envelope, onset / onset.max()]))
    return found


@pytest.fixture(scope="module")
def features(sound: dict[str, Tensor]) -> dict[str, Tensor]:
    """The first 30 fire where the envelope is above a threshold of their own, some samples sooner or later; the other
    10 are independent of it."""
    own = sparse_features(10, RUNS, RATE, np.random.default_rng(1))
    found = {}
    for run, sound_2T in sound.items():
        after = [(torch.roll(sound_2T[0], index % 7 - 3) - 0.02 * index).clamp(min=0) for index in range(30)]
        found[run] = torch.cat([torch.stack(after), own[run]])
    return found


def eeg_of(evoked: dict[str, np.ndarray], r: float, seed: int = 0) -> Study:
    return simulated(evoked, 12, r, RATE, ["0", "1"], np.random.default_rng(seed))


def test_the_envelope_alone(sound: dict[str, Tensor], features: dict[str, Tensor]) -> None:
    """Acceptance 4: many features have a lag at which subjects agree, and none explains more than the envelope."""
    study = eeg_of(responses(sound, [Planted(0, 0.15, 1), Planted(1, 0.1, -1)], RATE), 0.1)
    result = protocol(study, features, LAGS)
    found = torch.nonzero(result.found_F)[:, 0]
    assert len(found) >= 15 and (found < 30).all()
    some = {run: f_FT[found] for run, f_FT in features.items()}
    base = baseline(study, sound, LAGS)
    got = gains(study, some, sound, result.r_FS[found], result.ridge, base, LAGS, shifts=0)
    assert not got.beyond_F.any()
    assert float(base.r_S.mean()) > 0.08


def test_a_feature_of_its_own(sound: dict[str, Tensor], features: dict[str, Tensor]) -> None:
    """Beside the envelope's response one of feature 35: it is found, and explains more; feature 5 does not."""
    stimuli = {run: torch.cat([sound[run], features[run][35:36]]) for run in RUNS}
    study = eeg_of(responses(stimuli, [Planted(0, 0.15, 1), Planted(2, 0.2, -1)], RATE), 0.1)
    result = protocol(study, features, LAGS)
    assert result.found_F[35] and result.found_F[5]
    some = {run: f_FT[[5, 35]] for run, f_FT in features.items()}
    base = baseline(study, sound, LAGS)
    got = gains(study, some, sound, result.r_FS[[5, 35]], result.ridge, base, LAGS, shifts=50)
    assert got.beyond_F.tolist() == [False, True]
    # none of the shifts: 1 / 51
    assert got.shift_r_F.tolist() == pytest.approx([1 / 51, 1 / 51])
    assert got.shift_gain_F[0].isnan() and float(got.shift_gain_F[1]) == pytest.approx(1 / 51)
    assert float(got.null_r_FN.mean(1).abs().max()) < 0.02
    both = joint(study, features, [35], sound, base, LAGS)
    assert float((both - base.r_S).mean()) > 0.03


def test_sums_of_shifted_stimuli() -> None:
    """As of the signals themselves, shifted in a circle, where lags do not reach over the ends."""
    rng = np.random.default_rng(0)
    stimuli, response = torch.zeros(2, 400).double(), torch.from_numpy(rng.standard_normal((3, 400)))
    stimuli[:, 150:200] = torch.from_numpy(rng.standard_normal((2, 50)))
    shifts = torch.tensor([[0, 0, 0], [0, 40, 120]])
    lags = Lags(-5, 30)
    made = circular_moments(stimuli, response, lags, shifts)
    for index in range(3):
        rolled = torch.stack([torch.roll(stimuli[p], int(shifts[p, index])) for p in range(2)])
        expected = moments(rolled[:, None], response, lags)
        for name in ("gram_FKK", "cross_FKC", "sums_FK"):
            torch.testing.assert_close(getattr(made, name)[index], getattr(expected, name)[0], atol=1e-10, rtol=0)


def test_what_the_envelope_does_not_predict(sound: dict[str, Tensor], features: dict[str, Tensor]) -> None:
    study = eeg_of(responses(sound, [Planted(0, 0.15, 1)], RATE), 0.1)
    stimuli = {run: torch.stack([0.3 * torch.roll(sound[run][0], 5), features[run][35]]) for run in RUNS}
    rest = without(study, stimuli, sound)
    for run in RUNS:
        # rolled around the end, which a prediction from zeros outside cannot know
        assert float(rest[run][0, 10:].square().mean()) < 1e-4 * float(stimuli[run][0].square().mean())
        mean = stimuli[run][1] - stimuli[run][1].mean()
        assert float(np.corrcoef(rest[run][1], mean)[0, 1]) > 0.9


def test_runs_too_short_for_shifts(sound: dict[str, Tensor]) -> None:
    short = {run: sound_2T[:, : int(19 * RATE)] for run, sound_2T in sound.items()}
    study = eeg_of(responses(short, [Planted(0, 0.15, 1)], RATE), 0.1)
    base = baseline(study, short, LAGS)
    with pytest.raises(BrainError, match=r"run 0 lasts 19\.0 s, too short to be shifted by 10 s; pass --shifts 0"):
        gains(study, short, short, torch.zeros(2, 12), 1.0, base, LAGS)


def test_drift_of_the_clocks(sound: dict[str, Tensor]) -> None:
    evoked = responses(sound, [Planted(0, 0.15, 1)], RATE)
    steady = drift(eeg_of(evoked, 0.5), sound, LAGS)
    assert steady == pytest.approx([0.15] * 3, abs=2 / RATE)
    # 0.1 % faster: 120 ms after two minutes
    moved = {
        run: np.stack([np.interp(np.arange(e.shape[1]) * 0.999, np.arange(e.shape[1]), e[0])])
        for run, e in evoked.items()
    }
    early, middle, late = drift(eeg_of(moved, 0.5), sound, LAGS)
    assert early < middle < late and late - early > 0.05
