"""What all tests share."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

# several workers share the cores
torch.set_num_threads(1)

RECORDINGS = Path(__file__).parents[2] / "shared" / "audio"

if os.environ.get("CI"):

    def required(name: str, *args: Any, **kwargs: Any) -> ModuleType:
        """CI installs every package that tests use: there a missing one is an error and no reason to skip."""
        return importlib.import_module(name)

    pytest.importorskip = required


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder of recordings, one subset each with a manifest.csv."""
    if not RECORDINGS.is_dir():
        pytest.skip("the recordings are not on this machine (../shared/audio)")
    return RECORDINGS


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
