"""Models, SAEs, edits and commands on a device other than the CPU: one that fails where two devices meet (`far`)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hooks import ModelError, open_model
from steer.errors import TrainingError
from steer.trainee import TrainConfig
from steer.training import train_saes
from tests.hooks.contract.test_contract import collect

ROOT = Path(__file__).parents[2]
COMMANDS = ["edit", "edit to a goal", "features", "capture", "train"]
START = """
import runpy, sys, types
tests = sys.modules["tests"] = types.ModuleType("tests")  # a library of that name may be installed
tests.__path__ = [sys.argv.pop(1)]
runpy.run_module("tests.devices.child", run_name="__main__", alter_sys=True)
"""


def test_commands_and_models_do_on_another_device_what_they_do_here(tmp_path: Path) -> None:
    command = [sys.executable, "-c", START, str(ROOT / "tests"), str(tmp_path)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert ran.returncode == 0, ran.stderr[-3000:]
    told = {line["name"]: line for line in map(json.loads, ran.stdout.splitlines())}
    assert set(told) == {*COMMANDS, *(case.id for case in collect() if case.values[0] is not None)}
    assert not {name: line["error"] for name, line in told.items() if "error" in line}
    assert all(line["products"] > 0 for line in told.values())
    # the same numbers through the same kernels, but for the transformers' fused paths, which are the CPU's own
    assert {name: line["apart"] for name, line in told.items() if line["apart"] > 1e-4} == {}


@pytest.mark.parametrize("device", ["cuda:99", "nonsense"])
def test_a_device_that_is_not_there(device: str) -> None:
    with pytest.raises(ModelError, match=f"starter:codec: cannot be put on device '{device}'"):
        open_model("starter:codec", device=device)
    with pytest.raises(TrainingError, match="device"):
        train_saes(torch.randn(100, 4), [TrainConfig("topk", k=2, steps=1, batch_size=8)], device=device)
