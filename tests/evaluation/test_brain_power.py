"""Real features of real speech, and simulated EEG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation import brain_power
from evaluation.brain import protocol
from evaluation.brain_study import Sounds, labels_of
from evaluation.dataset import Dataset, LabelledSound
from evaluation.eeg_simulation import R, answer, likeness, plant, responses, simulated
from evaluation.trf import Lags
from hooks import Clip
from steer import SAE, SteeredModel, open_model

pytest.importorskip("scipy", reason="extra eeg")
AUDIO = Path(__file__).parents[3] / "shared" / "audio" / "orders"


def test_runs_of_clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import soundfile

    monkeypatch.setattr(brain_power, "RUN_S", 2.0)
    monkeypatch.setattr(brain_power, "LEAST_S", 1.0)
    for index in range(8):
        soundfile.write(tmp_path / f"{index}.wav", np.full((8000, 2), 0.01 * (index + 1)), 8000)
    sounds = [LabelledSound(tmp_path / f"{index}.wav", str(index)) for index in range(8)]
    runs = brain_power.runs_of(sounds[:7], 8000)
    assert [clip.waveform.shape for clip in runs.values()] == [(1, 16_000)] * 3 + [(1, 8000)]
    assert float(runs["2"].waveform[0, 100]) == pytest.approx(0.03, abs=1e-4)
    assert list(brain_power.runs_of([*sounds, sounds[0]], 8000)) == ["1", "2", "3", "4", "5"]
    assert brain_power.development_of(list("abcdefg")) == ["a", "c", "f"]


def test_planted_among_real_features(monkeypatch: pytest.MonkeyPatch) -> None:
    """Acceptance 1: all 5 found of real features, and every other one found is like one of them."""
    pytest.importorskip("transformers", reason="extra ssl")
    if not AUDIO.is_dir():
        pytest.skip("the recordings are not on this machine (../shared/audio)")
    steered = SteeredModel(open_model("starter:ssl"), SAE.load("starter:ssl/encoder.3"))
    monkeypatch.setattr(brain_power, "RUN_S", 120.0)
    clips = Dataset(AUDIO).sounds(split="train", limit=70)
    runs: dict[str, Clip] = brain_power.runs_of(clips, 16_000)
    sounds = Sounds.of(steered.model, steered.sites["encoder.3"], runs, 64.0, "linear")
    chosen, tracks, eligible = sounds.features(steered.saes["encoder.3"], 200, 0.2, 0)
    assert len(chosen) == eligible > 80
    assert all(f_FT.amax() <= 1 and f_FT.amin() >= 0 for f_FT in tracks.values())
    rng = np.random.default_rng(0)
    planted = plant(rng.choice(len(chosen), 5, replace=False).tolist(), rng)
    study = simulated(responses(tracks, planted, 64.0), 19, R, 64.0, brain_power.development_of(list(runs)), rng)
    result = protocol(study, tracks, Lags.between(0, 0.5, 64))
    alike_FP = likeness(tracks, planted, 64.0)
    got = answer(result, planted, alike_FP)
    assert got.found == 5 and got.right >= 3
    assert got.others == got.alike
    torch.testing.assert_close(alike_FP[[one.feature for one in planted]].diag(), torch.ones(5).double())


def test_features_that_never_fire_are_left_out() -> None:
    """Acceptance 7; and at most as many as are wanted, drawn by the seed."""
    pytest.importorskip("transformers", reason="extra ssl")
    steered = SteeredModel(open_model("starter:ssl"), SAE.load("starter:ssl/encoder.3"))
    sae = steered.saes["encoder.3"]
    clip = Clip(0.1 * torch.randn(1, 32_000, generator=torch.manual_seed(0)), 16_000)
    sounds = Sounds.of(steered.model, steered.sites["encoder.3"], {"a": clip}, 128.0, "hold")
    chosen, tracks, eligible = sounds.features(sae, None, 0, 0)
    fires_F = (steered.features(clip)["encoder.3"][0] > 0).any(0)
    assert chosen == torch.nonzero(fires_F)[:, 0].tolist() and not fires_F.all()
    assert len(chosen) == eligible and tracks["a"].amax(1).tolist() == pytest.approx([1] * eligible)
    few, _, of = sounds.features(sae, 3, 0, 1)
    assert len(few) == 3 and of == eligible and set(few) <= set(chosen)
    assert few == sounds.features(sae, 3, 0, 1)[0] != sounds.features(sae, 3, 0, 2)[0]


def test_labels_are_of_the_sae_that_ships() -> None:
    pytest.importorskip("transformers", reason="extra ssl")
    from evaluation.evaluators.brain import BrainConfig

    config = BrainConfig(audio=Path())
    steered = SteeredModel(open_model("starter:ssl"), SAE.load("starter:ssl/encoder.3"))
    atlas = config.labels(steered, "encoder.3")
    assert atlas is not None and atlas.d_sae == steered.saes["encoder.3"].d_sae
    labels = labels_of(atlas)
    assert labels and set(labels) <= set(range(atlas.d_sae)) and labels_of(None) == {}
    with torch.no_grad():
        steered.saes["encoder.3"].W_enc[0, 0] += 1
    assert config.labels(steered, "encoder.3") is None
