from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from evaluation.evaluators.vectors import (
    ALPHAS,
    RANDOM,
    VectorsConfig,
    correlation,
    of_length,
    one_alpha,
    random_direction,
    run,
    ways_of,
)
from evaluation.intervals import SpokenClip
from hooks import Clip, Codec, Site, write_clip
from steer import SAE, ControlVector, EditError, SteeredModel
from steer.vectors import from_direction

RATE, HOP, WIDTH = 24_000, 100, 4


class Gains(nn.Module):
    """A latent of zeros beside the sound: axis 0 is its gain in dB, axis 1 adds to its slope, the others do nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.latent = nn.Identity()

    def forward(self, audio_BCN: Tensor) -> Tensor:
        frames = -(-audio_BCN.shape[-1] // HOP)
        x_BTD = self.latent(torch.zeros(len(audio_BCN), frames, WIDTH))
        level_BN, slope_BN = x_BTD[..., :2].repeat_interleave(HOP, 1)[:, : audio_BCN.shape[-1]].unbind(2)
        brighter_BCN = audio_BCN + slope_BN[:, None] * torch.diff(audio_BCN, prepend=audio_BCN[..., :1])
        return brighter_BCN * 10 ** (level_BN[:, None] / 20)


class GainCodec(Codec):
    @torch.no_grad()
    def run(self, audio_BCN: Tensor) -> Tensor:
        return self.module(audio_BCN)


@pytest.fixture
def steered() -> SteeredModel:
    site = Site("latent", "latent", "BTD", width=WIDTH, frame_rate=RATE / HOP)
    codec = GainCodec(Gains(), [site], name="gains", sample_rate=RATE)
    return SteeredModel(codec, SAE(WIDTH, 16, "relu").requires_grad_(False), "latent", check=False)


@pytest.fixture
def vectors(steered: SteeredModel) -> dict[str, ControlVector]:
    """Loudness exactly, and by a way that is right for the most part; brightness."""
    W_dec = steered.saes["latent"].W_dec  # type: ignore[attr-defined]

    def along(name: str, *direction: float) -> ControlVector:
        return from_direction(torch.tensor(direction), W_dec, name, site="latent")

    return {
        "loudness": along("loudness-lstsq", 1.0, 0.0, 0.0, 0.0),
        "loudness-pairs": along("loudness-pairs", 5.0, 0.0, 5.0, 0.0),
        "brightness": along("brightness", 0.0, 0.05, 0.0, 0.0),
        "warmth": along("warmth", 0.0, 0.0, 1.0, 0.0),
    }


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    time_N = torch.arange(RATE // 4) / RATE
    lines = ["path,split"]
    (tmp_path / "notes").mkdir()
    for index in range(2):
        phase_N = 2 * math.pi * 220 * (index + 1) * time_N
        tone_N = 0.05 * sum((k * phase_N).sin() / k for k in range(1, 9))  # type: ignore[assignment, misc]
        write_clip(Clip(tone_N[None], RATE), tmp_path / "notes" / f"{index}.wav")  # type: ignore[index]
        lines.append(f"{index}.wav,test")
    (tmp_path / "notes" / "manifest.csv").write_text("\n".join(lines))
    return tmp_path


def test_ways_are_read_off_the_names(vectors: dict[str, ControlVector]) -> None:
    ways = ways_of(vectors)
    assert {name: list(some) for name, some in ways.items()} == {
        "loudness": ["lstsq", "pairs"],
        "brightness": ["shipped"],
    }
    with pytest.raises(EditError, match="there are no vectors for loudness, brightness, pitch; there are warmth"):
        ways_of({"warmth": vectors["warmth"]})


def test_an_alpha_is_as_far_for_every_way(steered: SteeredModel, vectors: dict[str, ControlVector]) -> None:
    W_dec = steered.saes["latent"].W_dec.detach()  # type: ignore[attr-defined]
    assert one_alpha(steered, vectors["loudness"], "loudness") == pytest.approx(9 / 30, rel=1e-4)
    for vector in (vectors["loudness-pairs"], random_direction(W_dec, 3)):
        assert float((of_length(vector, W_dec, 0.3).vector @ W_dec).norm()) == pytest.approx(0.3, rel=1e-4)
    assert torch.equal(random_direction(W_dec, 3).vector, random_direction(W_dec, 3).vector)


def test_r_is_pearsons_over_all_clips_and_its_interval_resamples_them() -> None:
    changes_CA = np.random.default_rng(0).standard_normal((6, 4)) + np.asarray(ALPHAS) / 10
    clips = [SpokenClip(str(index), "") for index in range(6)]
    found = correlation(changes_CA, ALPHAS, clips)
    assert found.value == pytest.approx(np.corrcoef(np.tile(ALPHAS, 6), changes_CA.ravel())[0, 1])
    assert found.low < found.value < found.high
    assert correlation(np.ones((2, 4)), ALPHAS, clips[:2]).value == 0


def test_changes_are_measured_against_the_input(
    steered: SteeredModel, vectors: dict[str, ControlVector], audio: Path
) -> None:
    report = run(VectorsConfig(audio=audio, subject=steered, vectors=vectors, subsets=("notes",)))
    rows = {(row["attribute"], row["way"]): row for row in report.rows}
    assert list(rows) == [
        ("loudness (dB)", "lstsq"),
        ("loudness (dB)", "pairs"),
        ("loudness (dB)", RANDOM),
        ("brightness (%)", "shipped"),
        ("brightness (%)", RANDOM),
    ]
    exact = rows["loudness (dB)", "lstsq"]
    assert [exact[f"alpha {alpha:g}"].value for alpha in (0, *ALPHAS)] == pytest.approx([0, 0.3, 3, 6, 9], abs=1e-3)
    assert exact["r"].value == pytest.approx(1)
    assert exact["brightness drift (%)"].value == pytest.approx(0, abs=0.01)
    assert exact["loudness drift (dB)"] is None
    # as far in the latent, of which a part does nothing
    assert rows["loudness (dB)", "pairs"]["alpha 30"].value == pytest.approx(9 / 2**0.5, rel=1e-3)
    assert rows["brightness (%)", "shipped"]["alpha 30"].value > 5
    assert len(report.clips) == 2 * 5 * 5
    assert report.about["one alpha"]["loudness"] == pytest.approx(0.3, rel=1e-4)


def test_an_sae_without_a_decoder_to_read(steered: SteeredModel, vectors: dict[str, ControlVector]) -> None:
    class Foreign:
        def encode(self, x: Tensor) -> Tensor:
            return x

        decode = encode

    other = SteeredModel(steered.model, Foreign(), "latent", check=False)
    with pytest.raises(EditError, match="no decoder W_dec"):
        one_alpha(other, vectors["loudness"], "loudness")
