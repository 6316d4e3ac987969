from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from safetensors.torch import save_file

from tests.interop.peer import Peer, X, environment

ROOT = Path(__file__).parents[2]
"""Our own code, for modules in memory."""


@pytest.fixture(scope="session")
def python_with(tmp_path_factory: pytest.TempPathFactory) -> Callable[[tuple[str, ...]], Path]:
    """A Python with such packages; tests that ask for the same ones share it."""
    return cache(lambda requirements: environment(tmp_path_factory.mktemp("env") / "env", requirements))


@pytest.fixture
def peer(tmp_path: Path, python_with: Callable[[tuple[str, ...]], Path]) -> Callable[..., Peer]:
    """peer("script.py", {name: what writes it}, "package>=1", "--no-deps"): the package's answers."""

    def make(script: str, ours: dict[str, Callable[[Path], object]], *requirements: str) -> Peer:
        python = python_with(requirements)
        for name, write in ours.items():
            write(tmp_path / "ours" / name)
        (tmp_path / "theirs").mkdir()
        save_file({"x": X}, tmp_path / "x.safetensors")
        command = [str(python), str(Path(__file__).with_name(script)), str(tmp_path)]
        # without a GPU all of them use plain torch
        variables = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "SPARSIFY_DISABLE_TRITON": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=variables)
        assert done.returncode == 0, done.stderr
        return Peer(tmp_path, done.stdout)

    return make
