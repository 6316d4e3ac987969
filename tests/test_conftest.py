"""What a test run says of itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]


def test_the_head_of_a_run_says_what_rounding_depends_on(pytestconfig: pytest.Config) -> None:
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this build of torch has no oneDNN")
    own = "\n".join(map(str, pytestconfig.hook.pytest_report_header(config=pytestconfig, start_path=ROOT)))
    assert f"oneDNN {'on' if torch.backends.mkldnn.enabled else 'off'}" in own
    settings = {"ATEN_CPU_CAPABILITY": "default", "AUDIOSTEER_TEST_THREADS": "2", "AUDIOSTEER_TEST_ONEDNN": "0"}
    environment = {**os.environ, **settings}
    command = [sys.executable, "-m", "pytest", "--collect-only", "-p", "no:cacheprovider", "tests/test_tolerance.py"]
    shown = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    (line,) = [line for line in shown.splitlines() if "oneDNN" in line]
    assert f"torch {torch.__version__}, 2 of {os.cpu_count()} threads, oneDNN off" in line
    assert "(DEFAULT)" in line or "(NO AVX)" in line
