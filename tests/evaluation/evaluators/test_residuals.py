from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from evaluation.evaluators import residuals
from evaluation.evaluators.residuals import (
    UNTOUCHED,
    ResidualsConfig,
    brightened,
    compared,
    ideal,
    run,
    tilted,
)
from hooks import Clip, read_clip
from steer.acoustics import centroid_hz
from steer.recipe import Recipe

pytest.importorskip("pystoi", reason="extra eval")


def sine(hz: float, seconds: float = 1.0, sample_rate: int = 24_000) -> torch.Tensor:
    time = torch.arange(round(seconds * sample_rate), dtype=torch.float64) / sample_rate
    return torch.sin(2 * torch.pi * hz * time).float()[None]


def amplitude(x_CN: torch.Tensor, hz: float) -> float:
    return float((x_CN * torch.exp(-2j * torch.pi * hz * torch.arange(x_CN.shape[1]) / 24_000)).mean().abs())


def test_a_tilt_is_so_many_db_an_octave_and_keeps_the_level() -> None:
    x_CN = sine(1000) + sine(2000)
    y_CN = tilted(x_CN, 3.0, 24_000)
    rise_db = 20 * np.log10(amplitude(y_CN, 2000) / amplitude(y_CN, 1000))
    assert rise_db == pytest.approx(3.0, abs=0.05)
    assert y_CN.square().mean() == pytest.approx(x_CN.square().mean().item(), rel=1e-4)
    assert torch.allclose(tilted(x_CN, 0.0, 24_000), x_CN, atol=1e-5)


@pytest.mark.parametrize("percent", [-30.0, 40.0])
def test_ideal_edits_have_the_change_that_was_asked_for(sound: Callable[..., Path], percent: float) -> None:
    clip = read_clip(sound("a.wav", seconds=0.5))
    louder_CN = ideal(clip, {"loudness": -6.0})
    assert louder_CN is not None
    assert 10 * (louder_CN.square().mean() / clip.waveform.square().mean()).log10() == pytest.approx(-6.0, abs=1e-3)
    brighter_CN = ideal(clip, {"brightness": percent})
    assert brighter_CN is not None
    moved = centroid_hz(brighter_CN, clip.sample_rate) / centroid_hz(clip.waveform, clip.sample_rate)
    assert 100 * (moved - 1) == pytest.approx(percent, abs=0.1)


def test_a_centroid_that_no_tilt_moves_has_no_ideal_edit() -> None:
    assert brightened(Clip(sine(1000), 24_000), 40.0) is None
    assert brightened(Clip(torch.zeros(1, 12_000), 24_000), 40.0) is None


def test_ways_are_compared_with_the_ideal_edit(
    codec_folder: Path,
    sae_folder: Path,
    sound: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sound("audio/notes/0.flac", seconds=0.5)
    sound("audio/digits/1.wav", seconds=0.6, sample_rate=16_000)
    for subset, name in (("notes", "0.flac"), ("digits", "1.wav")):
        (tmp_path / "audio" / subset / "manifest.csv").write_text(f"path,split\n{name},test\n")
    recipe = Recipe.build({"model": str(codec_folder), "saes": {"latent": str(sae_folder)}})
    vectors = {"loudness": recipe.control_vectors()["loudness"]}
    monkeypatch.setattr(residuals, "WAYS", ("ratio", "drop"))
    options = {"subsets": ("notes", "digits"), "requests": 1}
    report = run(ResidualsConfig(audio=tmp_path / "audio", subject=recipe.open(), vectors=vectors, **options))
    ways = [UNTOUCHED, "ratio", "drop"]
    assert [row["way"] for row in report.clips] == ways * 2
    rows = {(row["clips"], row["way"]): row for row in report.rows}
    assert set(rows) == {(subset, way) for subset in ("notes", "digits", "all") for way in ways}
    untouched = rows["notes", UNTOUCHED]
    # a gain moves every band that is above the floor by the request
    assert untouched["mel (dB)"].value == pytest.approx(abs(report.clips[0]["request"]), rel=0.35)
    assert untouched["met"] is None and untouched["STOI"] is None
    # a gain on the input is nearly the ideal edit; the tiny codec's own output is far from it
    assert rows["notes", "ratio"]["mel (dB)"].value < rows["notes", "drop"]["mel (dB)"].value / 2
    assert rows["all", "ratio"]["met"].count == 2
    assert rows["digits", "ratio"]["STOI"].value > rows["digits", "drop"]["STOI"].value
    assert report.about["without an ideal edit"] == 0


def test_channels_that_cancel_each_other_are_compared_by_the_loudest() -> None:
    x_N = 0.1 * torch.randn(16_000, generator=torch.Generator().manual_seed(0))
    other_N = 0.1 * torch.randn(16_000, generator=torch.Generator().manual_seed(1))
    against = compared(torch.stack([x_N, -x_N]), torch.stack([other_N, -other_N]), 16_000, speech=False)
    alone = compared(x_N[None], other_N[None], 16_000, speech=False)
    assert against["mel_db"] == pytest.approx(alone["mel_db"], rel=1e-5) and alone["mel_db"] > 1
