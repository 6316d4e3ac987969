"""Utterance vectors: means over the frames of a sound, without its padding, and from the cache where they are there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation.config import EvaluationError
from evaluation.dataset import LabelledSound
from evaluation.pooled import default_sites, fingerprint_of, pooled_activations, pooled_cache, pooled_crops
from hooks import Clip, Transcriber, wrap_model, write_clip
from hooks.capture import Recorder

RATE = 16_000


def sound_of(samples: np.ndarray, name: str = "") -> LabelledSound:
    return LabelledSound(Clip(torch.from_numpy(samples).float()[None], RATE), name)


@pytest.fixture
def ramp() -> LabelledSound:
    """A second that rises from 0 to 1: its first half has a mean of 1/4."""
    return sound_of(np.linspace(0, 1, RATE, endpoint=False), "ramp")


def test_the_mean_of_all_frames(listener: Transcriber, ramp: LabelledSound) -> None:
    low = sound_of(np.full(800, -0.5))
    found = pooled_activations(listener, [ramp, low, ramp], ["ear.0", "ear.1"])
    assert list(found) == ["ear.0", "ear.1"]
    for x_ND in found.values():
        np.testing.assert_allclose(x_ND, [[0.5, 0, 0, 0], [0, 0.5, 0, 0], [0.5, 0, 0, 0]], atol=1e-4)


def test_the_first_seconds_filled_up_or_not(listener: Transcriber, ramp: LabelledSound) -> None:
    half = pooled_activations(listener, [ramp], ["ear.0"], first_s=0.5)["ear.0"]
    assert half[0, 0] == pytest.approx(0.25, abs=1e-4)
    as_it_is, filled = (
        pooled_activations(listener, [ramp], ["ear.0"], first_s=2.0, fill=fill)["ear.0"] for fill in (False, True)
    )
    assert (as_it_is[0, 0], filled[0, 0]) == (pytest.approx(0.5, abs=1e-4), pytest.approx(0.25, abs=1e-4))


def test_stretches_lie_in_the_clip_and_depend_on_seed_and_clip(listener: Transcriber, ramp: LabelledSound) -> None:
    first, again, other = (pooled_crops(listener, [ramp], ["ear.0"], 40, seed=seed)["ear.0"] for seed in (0, 0, 1))
    assert first.shape == (1, 40, 4)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    # a quarter of the clip at least: the lowest mean is 1/8, the highest 7/8
    assert 0.125 - 0.01 <= first[..., 0].min() < 0.4 and 0.6 < first[..., 0].max() <= 0.875 + 0.01


def test_clips_are_passed_once(listener: Transcriber, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sounds = []
    for n in range(3):
        path = tmp_path / f"{n}.wav"
        write_clip(Clip(torch.full((1, 1600), 0.1 * (n + 1)), RATE), path)
        sounds.append(LabelledSound(path, path.name))
    first = pooled_activations(listener, sounds, ["ear.0"], kept=pooled_cache(tmp_path, listener))["ear.0"]
    passes: list[int] = []
    monkeypatch.setattr(type(listener), "pass_through", lambda self, audio: passes.append(1) or self.run(audio))
    again = pooled_activations(listener, sounds, ["ear.0"], kept=pooled_cache(tmp_path, listener))["ear.0"]
    assert passes == []
    np.testing.assert_array_equal(first, again)
    write_clip(Clip(torch.full((1, 1600), 0.9), RATE), tmp_path / "1.wav", force=True)
    changed = pooled_activations(listener, sounds, ["ear.0"], kept=pooled_cache(tmp_path, listener))["ear.0"]
    assert len(passes) == 1 and changed[1, 0] == pytest.approx(0.9, abs=1e-3)
    pooled_activations(listener, sounds, ["ear.0"], kept=pooled_cache(tmp_path, listener, codebooks=2))
    assert len(passes) == 4  # with another setting nothing is known


def test_errors_name_the_clip(listener: Transcriber) -> None:
    with pytest.raises(EvaluationError, match="click: listener cannot take it"):
        pooled_activations(listener, [sound_of(np.ones(100), "click")], ["ear.0"])
    with torch.no_grad(), pytest.raises(EvaluationError, match="odd: .*not finite"):
        listener.module.layers[0] = torch.nn.Threshold(0.0, float("nan"))
        pooled_activations(listener, [sound_of(-np.ones(1000), "odd")], ["ear.0"])


def test_a_copy_of_a_clip_has_its_fingerprint() -> None:
    one, two, louder = (Clip(torch.full((1, 10), value), RATE) for value in (0.1, 0.1, 0.2))
    assert fingerprint_of(one) == fingerprint_of(two) != fingerprint_of(louder)


def test_sites_along_a_transcript_are_left_out(listener: Transcriber) -> None:
    assert default_sites(listener) == ["ear.0", "ear.1"]
    with pytest.raises(EvaluationError, match="--site"):
        default_sites(wrap_model(torch.nn.Linear(2, 2)))


def test_padding_of_a_spectrogram_is_left_out() -> None:
    """Of 2 s AST has 20 moments of patches in each of its 12 bands; the rest of its 10.24 s is padding."""
    transformers = pytest.importorskip("transformers", reason="extra ast")
    pytest.importorskip("torchaudio", reason="AST's spectrograms")
    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    model = wrap_model(transformers.ASTModel(transformers.ASTConfig(**small)))
    noise = sound_of(0.1 * np.random.default_rng(0).normal(size=2 * RATE), "noise")
    with Recorder(model.module, [model.site("encoder.0")]) as recorder:
        model.run(model.prepare(noise.source))
        x_BTD = recorder.take()["encoder.0"]
    mean, padded = (
        pooled_activations(model, [noise], ["encoder.0"], padding=padding)["encoder.0"][0] for padding in (False, True)
    )
    torch.testing.assert_close(torch.from_numpy(mean), model.grid(x_BTD)[0, :, :20].mean((0, 1)), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(torch.from_numpy(padded), x_BTD[0].mean(0), atol=1e-5, rtol=1e-4)
    crops = pooled_crops(model, [noise], ["encoder.0"], 4)["encoder.0"]
    assert crops.shape == (1, 4, 16) and np.isfinite(crops).all()


def test_the_pass_for_stretches_gives_the_mean_too(listener: Transcriber, ramp: LabelledSound) -> None:
    kept = pooled_cache(None, listener)
    pooled_crops(listener, [ramp], ["ear.0"], 2, kept=kept)
    known = dict(kept.known)
    found = pooled_activations(listener, [ramp], ["ear.0"], kept=kept)["ear.0"]
    assert kept.known == known and found[0, 0] == pytest.approx(0.5, abs=1e-4)
