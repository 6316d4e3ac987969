"""The released SAE packages, each in an environment of its own that uses this one's torch and leaves this one alone."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from steer.sae import SAE

X = torch.randn(64, 12, generator=torch.Generator().manual_seed(1))
SAE_PACKAGES = ("sae-lens>=6,<7", "eai-sparsify>=1.3")
"""Most of what they depend on is the same."""
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}
"""b_dec is folded into our biases, which rounds otherwise."""


class Peer:
    """A package in an environment of its own, after it has read what we wrote and written something itself.

    Its script is called with a folder: of each `ours/NAME` it reads it writes `ours/NAME.safetensors`, and of each
    `theirs/NAME` it writes `theirs/NAME.safetensors` too, with its features `f` of `x` and their reconstruction.
    """

    def __init__(self, folder: Path, output: str) -> None:
        self.folder, self.output = folder, output

    def answer(self, name: str) -> tuple[Tensor, Tensor]:
        found = load_file(self.folder / f"{name}.safetensors")
        return found["f"], found["x"]

    def agrees(self, name: str, sae: SAE) -> None:
        f_NF, x_ND = self.answer(name)
        assert f_NF.count_nonzero() > len(X)
        torch.testing.assert_close(sae.encode(X), f_NF, **TOLERANCE)
        torch.testing.assert_close(sae(X), x_ND, **TOLERANCE)


def environment(folder: Path, requirements: tuple[str, ...]) -> Path:
    """A Python with the packages, or the reason to skip (no reason in CI)."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    script = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.run([python, "-c", script], check=True, capture_output=True, text=True).stdout.strip()
    (Path(site) / "parent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--quiet", "--disable-pip-version-check"]
    install = [*pip, "install", "--no-compile", *requirements]
    done = subprocess.run(install, capture_output=True, text=True)
    if done.returncode and not os.environ.get("CI"):
        pytest.skip(f"{requirements[0]} could not be installed: {(done.stderr.strip() or '?').splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return python


def random_sae(activation: str, **options: object) -> SAE:
    """All parameters random; 12 wide, 40 features, k = 5."""
    torch.manual_seed(len(activation))
    sae = SAE(12, 40, activation, 5, **options).requires_grad_(False)  # type: ignore[arg-type]
    for name, value in sae.named_parameters():
        value.copy_(torch.rand_like(value) * 0.5 if name == "threshold" else torch.randn_like(value) * 0.3)
    return sae
