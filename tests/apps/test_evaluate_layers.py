"""`steer evaluate layers` and `factors`, and their errors."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.tiny_encoder import RATE, tones

pytest.importorskip("transformers", reason="extra ssl")
pytest.importorskip("sklearn", reason="extra eval")
pytest.importorskip("matplotlib", reason="extra eval")

Run = Callable[..., tuple[int, str, str]]
MODEL = ("--model", "starter:ssl")


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tones(tmp_path_factory.mktemp("audio"), count=60)


def test_layers(steer: Run, audio: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["evaluate", "layers", "--audio", audio, *MODEL, "--site", "encoder.in,encoder.0", "-o", out]
    small = ["--sweep", "encoder.0", "--quick", "--nulls", "3", "--dictionary", "100"]
    code, shown, err = steer(*arguments, *small)
    assert code == 0, err
    report = json.loads((out / "layers.json").read_text())
    assert [row["site"] for row in report["rows"] if row["vectors"] == "dense"] == ["encoder.in", "encoder.0"]
    assert {row["sparsity"] for row in report["rows"]} == {None, "90 %", "99 %"}
    assert report["about"]["model"] == "starter:ssl" and report["about"]["classes"] == 3
    assert all(row["accuracy"]["value"] > 0.6 for row in report["rows"] if row["vectors"] == "dense")
    assert "| encoder.0 | SAE | 90 % | 10 |" in (out / "layers.md").read_text()
    assert (out / "layers.png").read_bytes().startswith(b"\x89PNG")
    assert "Accuracy of a linear probe" in shown and "Sparse codes" in shown
    code, shown, err = steer(*arguments, *small)
    assert code == 0 and "measured already" in shown


def test_factors_of_a_file(steer: Run, audio: Path, tmp_path: Path) -> None:
    """The frequency of a tone is in the layer; a number at random is not."""
    rng, lines = np.random.default_rng(0), ["path,hertz,chance"]
    for n in range(60):
        samples, _ = soundfile.read(audio / "tones" / f"{n}.wav")
        hertz = np.abs(np.fft.rfft(samples)).argmax() * RATE / len(samples)
        lines.append(f"{n}.wav,{hertz:.1f},{rng.normal():.4f}")
    (tmp_path / "f.csv").write_text("\n".join(lines))
    out = tmp_path / "out"
    code, shown, err = steer(
        "evaluate", "factors", "--audio", audio, *MODEL, "--site", "encoder.0", "--factors", tmp_path / "f.csv",
        "--quick", "--paper", "--dictionary", "100", "-o", out,
    )  # fmt: skip
    assert code == 0, err
    with (out / "factors.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["vectors"] == "dense"]
    found = {row["factor"]: float(row["R2"]) for row in rows}
    assert found["hertz"] > 0.6 and found["chance"] < 0.1
    assert next(row["completeness"] for row in rows if row["factor"] == "chance") == ""
    report = json.loads((out / "factors.json").read_text())
    assert "paper's R2" in report["rows"][0] and report["about"]["features"] == {"encoder.0": 100}
    assert (out / "factors.png").read_bytes().startswith(b"\x89PNG")
    assert "best-predicted factors" in shown


@pytest.fixture
def failing(steer: Run, tmp_path: Path) -> Callable[..., str]:
    def run(*arguments: object) -> str:
        code, _, err = steer("evaluate", *arguments, *MODEL, "-o", tmp_path / "deep" / "out")
        assert code == 2
        # transformers shows how it loads weights
        line = err.splitlines()[-1]
        assert line.startswith("steer: ") and err.count("\nsteer: ") == int(not err.startswith("steer: "))
        assert not (tmp_path / "deep").exists()
        return line

    return run


def listed(folder: Path, *rows: str) -> Path:
    """A subset of short tones with these rows: path,split,label,speaker,group."""
    (folder / "s").mkdir(parents=True)
    for row in rows:
        soundfile.write(folder / "s" / row.partition(",")[0], np.sin(np.arange(1600)), RATE)
    (folder / "s" / "manifest.csv").write_text("\n".join(["path,split,label,speaker,group", *rows]))
    return folder


def rows(labels: str, speakers: str = "", groups: str = "") -> list[str]:
    """Half to train on, half held out."""
    half = len(labels) // 2
    return [
        f"{n}.wav,{'train' if n < half else 'test'},{label},{speakers[n : n + 1]},{groups[n : n + 1]}"
        for n, label in enumerate(labels)
    ]


def test_labels_that_cannot_be_measured(failing: Callable[..., str], tmp_path: Path) -> None:
    good = listed(tmp_path / "good", *rows("abababab"))
    assert "--label colour: the manifests of s have no such column" in failing(
        "layers", "--audio", good, "--label", "colour"
    )
    one = listed(tmp_path / "one", *rows("aaaaaaaa"))
    assert "need two classes at least; they are all 'a'" in failing("layers", "--audio", one)
    rare = listed(tmp_path / "rare", *rows("aaabaaab"))
    assert "of b there is one clip to train on" in failing("layers", "--audio", rare)
    assert "no clip of split test has a label that is trained on" in failing(
        "layers", "--audio", listed(tmp_path / "other", *rows("ababcdcd"))
    )
    assert "no site 'encoder.99'" in failing("layers", "--audio", good, "--site", "encoder.99")
    assert "--sparsity 100" in failing("layers", "--audio", good, "--sparsity", "100")
    assert "leaves 0 of 20 features" in failing(
        "layers", "--audio", good, "--site", "encoder.0", "--nulls", "0", "--dictionary", "20", "--quick"
    )


def test_groups_that_would_make_a_result_empty(failing: Callable[..., str], steer: Run, tmp_path: Path) -> None:
    same = listed(tmp_path / "same", *rows("abababab", speakers="xyxyxyxy"))
    assert "it is confounded with the speaker" in failing("layers", "--audio", same)
    crossing = listed(tmp_path / "crossing", *rows("abababab", groups="11223311"))
    assert "group 1 is in two splits; --allow-confounded" in failing("layers", "--audio", crossing)
    out = tmp_path / "out"
    code, _, err = steer(
        "evaluate", "layers", "--audio", same, *MODEL, "--site", "encoder.0", "--sweep", "none", "--nulls", "2",
        "--allow-confounded", "-o", out,
    )  # fmt: skip
    assert code == 0, err
    report = json.loads((out / "layers.json").read_text())
    assert report["title"].endswith(", confounded with speaker")
    assert report["about"]["notes"] == [
        "2 of the column speaker (x, y) are in two splits: the accuracy may come from recognising them"
    ]


def test_factors_that_cannot_be_measured(
    failing: Callable[..., str], audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = listed(tmp_path / "few", *rows("abababab"))
    assert "for 50 clips at least, and there are 8" in failing("factors", "--audio", few)
    monkeypatch.setitem(sys.modules, "opensmile", None)
    assert "opensmile is not installed: pip install 'audiosteer[egemaps]'" in failing(
        "factors", "--audio", audio, "--factors", "egemaps"
    )
    assert "prosody: cannot be read" in failing("factors", "--audio", audio, "--factors", "prosody")


def test_a_clip_that_is_too_short(failing: Callable[..., str], tmp_path: Path) -> None:
    pytest.importorskip("librosa", reason="extra eval")
    folder = tones(tmp_path / "short", count=60)
    soundfile.write(folder / "tones" / "1.wav", np.ones(100), RATE)
    assert "tones/1.wav: too short for factors (0.013 s" in failing("factors", "--audio", folder)
