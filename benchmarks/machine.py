"""What a measurement was made on."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from steer.matmul import backend

PACKAGES = ("audiosteer", "torch", "transformers", "openai-whisper", "encodec")


def describe() -> dict[str, Any]:
    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        **gpu,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch_build": torch_build(),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "versions": {name: installed for name in PACKAGES if (installed := version_of(name))},
        "backend": backend(),
    }


def processor() -> str:
    """Its name and the widest instructions that torch uses of it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = named[0] if named else platform.processor() or platform.machine()
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"


def torch_build() -> str:
    """The libraries that torch was built with."""
    lines = torch.__config__.show().splitlines()
    return "; ".join(line.strip(" -") for line in lines[1:] if "Build settings" not in line)


def version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@contextmanager
def threads(count: int) -> Iterator[None]:
    """So many threads of torch, and then as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
