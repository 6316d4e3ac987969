from __future__ import annotations

from pathlib import Path

import pytest
import torch

from evaluation.acoustics_run import evaluate, random_like, requests_for, summary
from steer import ControlVector, SteeredModel


def test_requests_of_a_clip_are_the_same_in_every_run() -> None:
    first = requests_for("notes/a.flac", "loudness", 2)
    assert first == requests_for("notes/a.flac", "loudness", 2)
    assert len(set(first)) == 2
    assert len(requests_for("notes/a.flac", "pitch", 99)) == 4


def test_the_control_moves_the_activation_as_far() -> None:
    decoder, vector = torch.randn(40, 8), ControlVector(torch.randn(40))
    control = random_like(vector, decoder, seed=1)
    assert (control.vector @ decoder).norm() == pytest.approx((vector.vector @ decoder).norm().item(), rel=1e-4)
    assert not torch.allclose(control.vector, vector.vector)


def test_summary_counts_what_was_met() -> None:
    base = {
        "subset": "notes",
        "attribute": "loudness",
        "measurable": True,
        "control_met": False,
        "loudness": 6.0,
        "pitch": None,
    }
    rows = [
        {**base, "met": met, "brightness": drift}
        for met, drift in ((True, 2.0), (True, -4.0), (False, 6.0), (True, 0.0))
    ]
    (row, total) = summary(rows)
    assert (row["clips"], total["clips"], row["edits"]) == ("notes", "all", 4)
    assert str(row["met"]).startswith("75 % [")
    assert str(row["control met"]).startswith("0 % [")
    assert row["brightness drift (%)"].value == 3.0
    assert row["pitch drift (cents)"] is None


def test_a_small_run_on_recordings(steered: SteeredModel, vectors: dict[str, ControlVector], recordings: Path) -> None:
    pytest.importorskip("torchcrepe", reason="extra eval")
    report = evaluate(
        steered,
        vectors,
        recordings,
        split="valid",
        subsets=["singing"],
        clips_per_subset=1,
        requests=1,
        attributes=["loudness"],
    )
    (clip,) = report.clips
    assert clip["met"] == (abs(clip["loudness"] - clip["request"]) <= 1.0)
    assert {row["clips"] for row in report.rows} == {"singing", "all"}
