"""The released sae-lens opens what `SAE.save` writes and gives the same features; in an environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from steer.sae import SAE

pytestmark = pytest.mark.interop
KINDS = ["relu", "topk", "batchtopk", "jumprelu", "gated"]
X = torch.randn(64, 12, generator=torch.Generator().manual_seed(1))
READER = """
import sys
from pathlib import Path
from safetensors.torch import load_file, save_file
from sae_lens import SAE
folder = Path(sys.argv[1])
x = load_file(folder / "x.safetensors")["x"]
for name in sys.argv[2:]:
    sae = SAE.load_from_disk(folder / name)
    f = sae.encode(x)
    save_file({"f": f.detach(), "x": sae.decode(f).detach()}, folder / f"{name}.safetensors")
try:
    SAE.load_from_disk(folder / "rms")
except Exception as error:
    print("refused:", error)
"""


@pytest.fixture(scope="module")
def sae_lens_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with sae-lens, which uses this environment's torch and leaves this environment alone."""
    folder = tmp_path_factory.mktemp("sae_lens")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    script = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.run([python, "-c", script], check=True, capture_output=True, text=True).stdout.strip()
    (Path(site) / "parent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "sae-lens>=6,<7"]
    done = subprocess.run(install, capture_output=True, text=True)
    if done.returncode and not os.environ.get("CI"):
        pytest.skip(f"sae-lens could not be installed: {(done.stderr.strip() or 'no message').splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return python


def test_sae_lens_gives_the_same(random_sae: Callable[..., SAE], sae_lens_python: Path, tmp_path: Path) -> None:
    saes = {f"{kind}-{center}": random_sae(kind, center=center) for kind in KINDS for center in (True, False)}
    for name, sae in saes.items():
        sae.save(tmp_path / name)
    random_sae("relu", rms_norm=True).save(tmp_path / "rms")
    save_file({"x": X}, tmp_path / "x.safetensors")
    command = [str(sae_lens_python), "-c", READER, str(tmp_path), *saes]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""})
    assert done.returncode == 0, done.stderr
    assert "refused:" in done.stdout  # it has no RMS norm: reading it as a plain SAE would be wrong
    for name, sae in saes.items():
        theirs = load_file(tmp_path / f"{name}.safetensors")
        f_NF = sae.encode(X)
        # b_dec is folded into our bias, which rounds otherwise
        torch.testing.assert_close(theirs["f"], f_NF, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(theirs["x"], sae.decode(f_NF), atol=1e-5, rtol=1e-5)
