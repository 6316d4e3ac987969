from __future__ import annotations

from pathlib import Path

import pytest
import torch

from evaluation.reconstruction import evaluate, sdr_db, stoi
from steer import SteeredModel


def test_sdr_is_the_ratio_of_energies_in_db() -> None:
    x, noise = torch.randn(1000), torch.randn(1000)
    noise *= x.norm() / noise.norm() / 10
    assert sdr_db(x, x + noise) == pytest.approx(20.0, abs=1e-3)


def test_stoi_falls_with_noise_and_needs_half_a_second(recordings: Path) -> None:
    pytest.importorskip("pystoi", reason="extra eval")
    from hooks import read_clip

    speech = read_clip(recordings / "ljspeech" / "LJ001-0015.flac")
    x, rate = speech.waveform[0, : 3 * speech.sample_rate], speech.sample_rate
    scores = [stoi(x, x + level * torch.randn_like(x), rate) for level in (1e-4, 0.05, 0.5)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0.99
    assert stoi(x[:1000], x[:1000], rate) is None


def test_every_path_is_measured_and_the_codec_is_left_as_it_was(steered: SteeredModel, recordings: Path) -> None:
    report = evaluate(steered, None, recordings, split="valid", subsets=["singing"], clips_per_subset=1)
    assert [row["path"] for row in report.rows] == ["continuous", "through the SAE", "quantised"]
    continuous, through_sae, quantised = (row["SDR (dB)"].value for row in report.rows)
    assert continuous > max(through_sae, quantised)
    assert steered.model.quantize is False
