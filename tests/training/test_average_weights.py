"""Averages of two trainings, chosen by what is measured."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hooks.networks.source_filter import SourceFilter
from training import average_weights
from training.train_codec import CONFIG


def test_between() -> None:
    first, second = {"a": torch.tensor([0.0, 2.0])}, {"a": torch.tensor([1.0, 4.0])}
    assert average_weights.between(first, second, 0.25)["a"].tolist() == [0.25, 2.5]
    assert average_weights.between(first, second, 1.5)["a"].tolist() == [1.5, 5.0]


def test_the_share_with_the_lowest_mel_distance_is_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index, name in enumerate(("first", "second")):
        torch.manual_seed(index)
        (tmp_path / name).mkdir()
        state = {key: value.contiguous() for key, value in SourceFilter(CONFIG).state_dict().items()}
        save_file(state, tmp_path / name / "model.safetensors")
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("first", "second"))
    half = average_weights.between(first, second, 0.5)["directions"]

    def measured(model: SourceFilter, valid: object) -> dict[str, float]:
        return {"valid_mel": float((model.directions - half).abs().sum())}

    monkeypatch.setattr(average_weights, "measured", measured)
    monkeypatch.setattr(average_weights, "valid_clips", lambda audio: [])
    average_weights.main(
        tmp_path / "first", tmp_path / "second", tmp_path, tmp_path / "out", shares="0,0.5,1", threads=1
    )
    found = load_file(tmp_path / "out" / "model.safetensors")["directions"]
    torch.testing.assert_close(found, half.half(), atol=1e-3, rtol=0)
