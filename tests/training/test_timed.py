from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from training.timed import TimedTraining


class Distance(nn.Module):
    """A model whose loss is how far its only weight is from 3."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def terms(self) -> dict[str, Tensor]:
        total = (self.weight - 3).square()
        return {"total": total, "never": torch.tensor(torch.nan)}


def training(folder: Path, minutes: float = 0.02) -> TimedTraining:
    return TimedTraining(Distance(), folder, minutes, 0.1, warmup=5, betas=(0.9, 0.99), weight_decay=0.0, clip=1.0)


def test_it_learns_until_the_time_is_used_up_and_says_so(tmp_path: Path) -> None:
    one = training(tmp_path)
    one.run(one.model.terms, lambda: {"checked": 1.0}, log_every=10, check_every=20)
    assert one.used >= 1.0
    assert one.model.weight.item() == pytest.approx(3.0, abs=0.1)
    # the averaged weight lags behind
    assert 1.0 < one.average["weight"].item() <= one.model.weight.item() + 0.1
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(10, 10 * len(rows) + 1, 10))
    assert rows[1]["checked"] == 1.0
    assert "checked" not in rows[0]
    assert "never" not in rows[0]
    assert rows[-1]["total"] < rows[0]["total"]


def test_the_rate_rises_and_falls(tmp_path: Path) -> None:
    one = training(tmp_path)
    rates = []
    for used in (0.0, 0.0, 0.0, 0.0, 0.0, 0.5, 1.0):
        one.used = used
        one.learn(one.model.terms()["total"])
        rates.append(one.optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1, 0.0505, 0.001])


def test_a_stopped_run_goes_on_where_it_was(tmp_path: Path) -> None:
    one = training(tmp_path)
    for _ in range(7):
        one.learn(one.model.terms()["total"])
    one.used, one.best = 0.4, 2.5
    one.save()
    two = training(tmp_path)
    two.resume()
    assert (two.step, two.used, two.best) == (7, 0.4, 2.5)
    for each in (one, two):
        each.learn(each.model.terms()["total"])
    assert torch.equal(one.model.weight, two.model.weight)
    assert torch.equal(one.average["weight"], two.average["weight"])
    assert not list(tmp_path.glob(".*.partial"))
