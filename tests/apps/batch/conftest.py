"""Many tiny sounds, a short edit of them, and what comes of it undisturbed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from apps.cli import main

KILLS = int(os.environ.get("AUDIOSTEER_KILLS", "4"))
FILES = max(120, 25 * KILLS)


def write_sounds(folder: Path, count: int) -> None:
    """0.05 to 0.1 s of noise at 8 kHz each, in five folders."""
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / str(number % 5) / f"{number:03}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, 0.1 * rng.standard_normal(rng.integers(400, 800)), 8000)


@pytest.fixture(scope="session")
def edits(codec_folder: Path, sae_folder: Path) -> list[str]:
    """Options of `steer edit`, without goals, so that a file takes no time."""
    return ["--model", str(codec_folder), "--sae", str(sae_folder), "--scale", "0=1.5"]


@pytest.fixture(scope="session")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    write_sounds(folder, FILES)
    return folder


@pytest.fixture(scope="session")
def undisturbed(many: Path, edits: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """{name: bytes} of the outputs of `many`, done in this process."""
    out = tmp_path_factory.mktemp("undisturbed")
    here("edit", many, "-o", out, *edits)
    return outputs(out)


def here(*arguments: object) -> None:
    """`steer ARGUMENTS` in this process, to its end.

    With oneDNN, whatever AUDIOSTEER_TEST_ONEDNN says: other processes, whose output is compared, do not read it."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as left:
        patch.setattr(torch.backends.mkldnn, "enabled", True)
        main([*map(str, arguments), "--json"])
    assert not left.value.code


def outputs(out: Path) -> dict[str, bytes]:
    """{name: bytes} of all files in a tree but the journal."""
    files = (path for path in out.rglob("*") if path.is_file() and path.name != "journal.jsonl")
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}
