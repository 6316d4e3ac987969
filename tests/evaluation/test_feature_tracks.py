"""Frames of long sounds, their moments, and features at the rate of the EEG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation import feature_tracks
from evaluation.brain import BrainError
from evaluation.feature_tracks import acoustics, at_rate, by_maximum, encoded, first_centre_s, frames_of
from hooks import Clip, Site, open_model
from steer import SAE


def test_windows_are_as_one(codec_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each frame once, at its moment; at the borders of windows as in one pass, but for how far the model sees."""
    model = open_model(codec_folder)
    site = model.site("latent")
    clip = Clip(0.1 * torch.randn(1, 24_000 * 4, generator=torch.manual_seed(0)), 24_000)
    whole = frames_of(model, site, clip)
    monkeypatch.setattr(feature_tracks, "WINDOW_S", 2.0)
    monkeypatch.setattr(feature_tracks, "OVERLAP_S", 1.0)
    pieces = frames_of(model, site, clip)
    assert whole.length_s == pieces.length_s == 4
    np.testing.assert_allclose(pieces.centre_T, whole.centre_T)
    assert site.frame_rate and np.allclose(np.diff(whole.centre_T), 1 / site.frame_rate)
    off_T = (pieces.x_TD - whole.x_TD).abs().amax(1) / whole.x_TD.std()
    # this codec has a recurrent layer, whose state begins anew in each window
    assert float(off_T.median()) < 0.05


def test_where_frames_are(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers", reason="extra ssl")
    model = open_model("starter:ssl")
    # 400 samples at 16 kHz
    assert first_centre_s(model, model.site("encoder.3")) == 0.0125
    # a click is where it is, to a frame
    audio = torch.zeros(1, 16_000)
    audio[:, 8000:8010] = 1.0
    frames = frames_of(model, model.site("conv"), Clip(audio, 16_000))
    loudest = frames.x_TD.sub(frames.x_TD.median(0).values).abs().sum(1).argmax()
    assert abs(frames.centre_T[loudest] - 0.5) <= 0.02


def test_a_site_without_a_frame_rate(codec_folder: Path) -> None:
    model = open_model(codec_folder)
    with pytest.raises(BrainError, match="has no frame rate"):
        frames_of(model, Site("x", "decoder"), Clip(torch.zeros(1, 100), 24_000))


def test_lines_between_frames() -> None:
    centres = np.array([0.1, 0.3, 0.5])
    f_TF = torch.tensor([[1.0, 0.0], [3.0, 0.0], [2.0, 8.0]])
    line = at_rate(f_TF, centres, 0.7, 10.0)
    # times 0, .1, ... .6; beyond the ends as at them
    torch.testing.assert_close(line[0], torch.tensor([1, 1, 2, 3, 2.5, 2, 2]))
    torch.testing.assert_close(line[1], torch.tensor([0, 0, 0, 0, 4.0, 8, 8]))
    steps = at_rate(f_TF, centres, 0.7, 20.0, "hold")
    assert set(steps[0].tolist()) == {1.0, 3.0, 2.0}
    torch.testing.assert_close(at_rate(f_TF[:1], centres[:1], 0.3, 10.0)[0], torch.ones(3))


def test_envelope_and_onset() -> None:
    rate, level = 8000, torch.cat([torch.full((8000,), 0.1), torch.full((8000,), 0.4)])
    tone = torch.sin(2 * torch.pi * 400 * torch.arange(16_000) / rate)
    envelope, onset = acoustics(Clip((level * tone)[None], rate), 2.0, 100.0)
    assert envelope.shape == (200,)
    assert float(envelope[50]) == pytest.approx((0.1 / 2**0.5) ** 0.3, rel=1e-3)
    assert float(envelope[150]) == pytest.approx((0.4 / 2**0.5) ** 0.3, rel=1e-3)
    assert abs(int(onset[5:].argmax()) + 5 - 100) <= 1 and float(onset.min()) == 0


def test_maxima_are_of_all_runs() -> None:
    scaled = by_maximum({"a": torch.tensor([[1.0, -4.0], [0.0, 0.0]]), "b": torch.tensor([[2.0], [0.0]])})
    assert scaled["a"].tolist() == [[0.25, -1.0], [0, 0]] and scaled["b"].tolist() == [[0.5], [0]]


def test_some_features(codec_folder: Path) -> None:
    torch.manual_seed(0)
    sae = SAE(16, 32, "relu")
    model = open_model(codec_folder)
    frames = frames_of(model, model.site("latent"), Clip(0.1 * torch.randn(1, 24_000), 24_000))
    whole = encoded(sae, frames)
    assert whole.shape == (len(frames.centre_T), 32)
    assert torch.equal(encoded(sae, frames, torch.tensor([3, 7])), whole[:, [3, 7]])
