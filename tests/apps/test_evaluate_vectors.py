"""`steer evaluate vectors`; what it measures is in `tests/evaluation/evaluators/test_vectors.py`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from steer.vectors import load_vectors, save_vectors

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def audio(sound: Callable[..., Path], tmp_path: Path) -> Path:
    for subset in ("notes", "singing", "ljspeech", "speech_misc", "digits"):
        sound(f"audio/{subset}/a.wav", 0.15)
        (tmp_path / "audio" / subset / "manifest.csv").write_text("path,split\na.wav,test\n")
    return tmp_path / "audio"


def test_a_table_of_ways(steer: Run, audio: Path, codec_folder: Path, sae_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(sae_folder, tmp_path / "sae")
    path = folder / "vectors.safetensors"
    vectors = load_vectors(path)
    save_vectors({"loudness": vectors["loudness"], "loudness-pairs": 3 * vectors["loudness"]}, path)
    code, shown, err = steer(
        "evaluate", "vectors", "--audio", audio, "-o", tmp_path / "out", "--model", codec_folder, "--sae", folder
    )
    assert code == 0, err
    report = json.loads((tmp_path / "out" / "vectors.json").read_text())
    assert [row["way"] for row in report["rows"]] == ["shipped", "pairs", "random"]
    shipped, pairs, _ = report["rows"]
    assert shipped["alpha 30"]["value"] > shipped["alpha 0"]["value"] + 4
    assert pairs["alpha 30"]["value"] == pytest.approx(shipped["alpha 30"]["value"], abs=1e-3)
    assert "by how they were found" in shown


def test_nothing_to_compare_is_one_line(
    steer: Run, audio: Path, codec_folder: Path, sae_folder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(sae_folder, tmp_path / "sae")
    (folder / "vectors.safetensors").unlink()
    code, _, err = steer(
        "evaluate", "vectors", "--audio", audio, "-o", tmp_path / "out", "--model", codec_folder, "--sae", folder
    )
    assert (code, err.count("\n")) == (2, 1)
    assert "there are no vectors for loudness, brightness, pitch; there are none" in err
    assert not (tmp_path / "out").exists()
