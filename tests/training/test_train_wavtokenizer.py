from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hooks import open_model
from training.sounds import Sound, make_noise, make_tone
from training.train_wavtokenizer import CONFIG, SEGMENT_FRAMES, Batches, Trainer

pytest.importorskip("librosa", reason="mel filters are librosa's (extra eval)")


@pytest.fixture(scope="module")
def sounds() -> list[Sound]:
    rng = np.random.default_rng(0)
    tones = [make_tone(1.0, CONFIG.sample_rate, rng, [2.0]) for _ in range(3)]
    return [*tones, make_noise(0.3, CONFIG.sample_rate, rng)]


def test_batches_hold_what_the_changes_say(sounds: list[Sound]) -> None:
    batches = Batches(sounds, size=40, seed=0)
    x_BN, y_BN, change_B2 = batches.draw()
    assert x_BN.shape == y_BN.shape == (40, SEGMENT_FRAMES * CONFIG.hop_length)
    assert x_BN.abs().max() <= 0.98 + 1e-6
    plain = (change_B2 == 0).all(1)
    assert 0 < plain.sum() < 40
    # a tilt of 0 is two transforms there and back
    torch.testing.assert_close(y_BN[plain], x_BN[plain], atol=1e-5, rtol=1e-4)
    level_B = 20 * (y_BN.square().mean(1).sqrt() / x_BN.square().mean(1).sqrt()).log10()
    # tilting keeps the level, but for what is cut off behind the end
    torch.testing.assert_close(level_B, change_B2[:, 0], atol=0.5, rtol=0)
    assert y_BN.abs().max() > 1  # louder than full scale is asked for too, or loud recordings could not get louder


@pytest.fixture(scope="module")
def trained(sounds: list[Sound], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some steps of training; what counts here is that the parts fit, not how it sounds."""
    folder = tmp_path_factory.mktemp("codec")
    trainer = Trainer(Batches(sounds, 2, seed=0), folder, minutes=0.03, rate=1e-4)
    trainer.train(log_every=1)
    assert trainer.step >= 1
    trainer.export()
    return folder


def test_the_export_opens_as_a_codec_and_is_small_enough_to_ship(trained: Path) -> None:
    codec = open_model(trained)
    audio_BCN = 0.1 * torch.randn(1, 1, 10 * CONFIG.hop_length)
    assert codec.run(audio_BCN).shape == audio_BCN.shape
    assert (trained / "model.safetensors").stat().st_size < 16e6
    assert (trained / "log.jsonl").read_text().count('"sdr"') >= 1


def test_a_finished_run_resumes_to_its_end_and_exports_the_same(trained: Path, sounds: list[Sound]) -> None:
    before = (trained / "model.safetensors").read_bytes()
    again = Trainer(Batches(sounds, 2, seed=1), trained, minutes=0.03, rate=1e-4)
    again.train()
    again.export()
    assert again.used >= 1.0
    assert (trained / "model.safetensors").read_bytes() == before


def test_training_starts_from_exported_weights(trained: Path, sounds: list[Sound], tmp_path: Path) -> None:
    trainer = Trainer(Batches(sounds, 4, seed=2), tmp_path, minutes=1.0, rate=1e-4)
    trainer.start_from(trained, rounds=2)
    exported = open_model(trained).module.state_dict()
    state = trainer.model.state_dict()
    assert set(state) == {*exported, "directions"}
    assert all(torch.equal(state[name], value) for name, value in exported.items())
    assert torch.isfinite(trainer.loss()["total"])
