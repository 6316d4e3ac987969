"""`test_gpu.py` on the CPU, by Triton's interpreter: Triton has to know of it before it is imported."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def test_the_kernels_by_the_interpreter() -> None:
    pytest.importorskip("triton", reason="Triton comes with torch on Linux alone")
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "--noconftest"]
    command += [str(Path(__file__).with_name("test_gpu.py"))]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    assert ran.returncode == 0, ran.stdout[-5000:] + ran.stderr[-2000:]
    passed = re.search(r"(\d+) passed", ran.stdout)
    assert passed is not None and int(passed[1]) > 60, ran.stdout[-2000:]
