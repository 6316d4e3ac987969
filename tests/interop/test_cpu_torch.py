"""docs/install.md: where a CPU build of torch is installed, AudioSteer keeps it, and no library of CUDA comes along.

pip resolves what it would install into an environment that has a stand-in for such a build: a wheel without files that
calls itself torch 2.11.0+cpu and, as the real one, requires nothing of CUDA. Nothing is downloaded but metadata.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

pytestmark = pytest.mark.interop
ROOT = Path(__file__).parents[2]
WHEEL = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
OF_CUDA = re.compile(r"nvidia-|cuda-|triton$")


def stand_in(folder: Path, name: str, version: str) -> Path:
    """A wheel without files."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    about = f"{name}-{version}.dist-info"
    with ZipFile(path, "w") as wheel:
        wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{about}/WHEEL", WHEEL)
        wheel.writestr(f"{about}/RECORD", "")
    return path


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment whose torch and torchaudio are CPU builds, as far as pip can see."""
    folder = tmp_path_factory.mktemp("cpu")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "env")], check=True)
    wheels = [stand_in(folder, name, "2.11.0+cpu") for name in ("torch", "torchaudio")]
    found = folder / "env" / "bin" / "python"
    pip(found, "install", "--no-index", "--no-deps", *map(str, wheels))
    return found


def pip(python: Path, *arguments: str) -> str:
    """Standard output of pip for that environment, or the reason to skip (no reason in CI)."""
    command = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "--quiet"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True)
    if done.returncode and not os.environ.get("CI"):
        pytest.skip(f"pip: {(done.stderr.strip() or '?').splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return done.stdout


def installed_with(python: Path, *requirements: str) -> set[str]:
    """Names of the packages that pip would install."""
    constraints = ("--constraint", str(ROOT / "constraints.txt"))
    report = pip(python, "install", "--dry-run", "--report", "-", *constraints, *requirements)
    return {re.sub(r"[-_.]+", "-", one["metadata"]["name"]).lower() for one in json.loads(report)["install"]}


def test_torch_is_kept_and_nothing_of_cuda_comes_but_triton_of_openai_whisper(python: Path) -> None:
    names = installed_with(python, f"{ROOT}[whisper,ssl]")
    assert {"audiosteer", "numpy", "openai-whisper", "transformers"} <= names and "torch" not in names
    assert {name for name in names if OF_CUDA.match(name)} <= {"triton"}
