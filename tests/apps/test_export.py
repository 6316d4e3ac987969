"""`steer export`, with a tiny Whisper of random weights in place of the starter's."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file

from hooks.families.whisper.compact import EMBEDDING, SINUSOIDS
from steer import SAE, SAEInfo

model = pytest.importorskip("whisper.model", reason="extra whisper")
pytest.importorskip("transformers", reason="extra whisper")

Run = Callable[..., tuple[int, str, str]]
SAID, END = 50_000, 50_256
"""What this model writes, whatever it hears: " grids", and the end."""


@pytest.fixture
def asr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    module = model.Whisper(model.ModelDimensions(80, 1500, 64, 1, 1, 51_864, 448, 64, 1, 1))
    state = {name: value.half() for name, value in module.state_dict().items() if name != SINUSOIDS}
    for name, value in state.items():
        # the decoder passes each token's row to its last norm as it is
        if name.startswith("decoder.") and any(part in name for part in ("positional", ".out.", ".mlp.2.")):
            value.zero_()
    # there axis 0 changes its sign: behind any other token the word's row is the nearest, behind the word the end's
    state["decoder.ln.weight"][0] = -1
    state[EMBEDDING] = torch.zeros(3, 64).half()
    state[EMBEDDING][:, :2] = torch.tensor([[10, 10], [-10, 0], [0, 5]])
    folder = tmp_path / "starter" / "asr"
    SAE(64, 64, "relu", info=SAEInfo(site="encoder.0")).save(folder / "encoder.0")
    save_file(state | {"vocabulary": torch.tensor([SAID, END])}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"architecture": "whisper_compact", **asdict(module.dims)}))
    monkeypatch.setattr("hooks.starter.FOLDER", tmp_path / "starter")
    return folder


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "a.wav", 0.1 * np.random.default_rng(0).standard_normal(8000), 16_000)
    return tmp_path / "a.wav"


@pytest.mark.usefixtures("asr")
def test_what_is_exported_transcribes_with_the_starters_saes(steer: Run, sound: Path, tmp_path: Path) -> None:
    out, recipe = tmp_path / "out", tmp_path / "r.yaml"
    code, shown, _ = steer("export", "starter:asr", out, "--json")
    assert code == 0
    told = {"model": "starter:asr", "openai-whisper": str(out / "model.pt"), "transformers": str(out)}
    assert json.loads(shown) == told
    recipe.write_text("edits: [{ablate: [1, 2, 3]}]")
    for flags in (("--recipe", recipe), ("--recipe", recipe, "--model", out), ("--model", f"whisper:{out}/model.pt")):
        assert steer("transcribe", sound, *flags)[:2] == (0, "grids\n")
    assert steer("transcribe", sound, "--model", out, "--language", "de")[0] == 2


@pytest.mark.usefixtures("asr")
def test_what_is_there_stays_unless_it_is_forced(steer: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "config.json").write_text("mine")
    (out / "notes.txt").write_text("mine")
    code, _, err = steer("export", "starter:asr", out)
    assert code == 2 and err.count("\n") == 1 and "is not empty; use --force" in err
    code, _, err = steer("export", "starter:asr", out / "notes.txt")
    assert code == 2 and err.count("\n") == 1 and "is a file" in err
    assert [path.read_text() for path in out.iterdir()] == ["mine", "mine"]
    code, shown, _ = steer("export", "starter:asr", out, "--force")
    assert code == 0 and f"whisper.load_model('{out / 'model.pt'}')" in shown
    assert json.loads((out / "config.json").read_text())["model_type"] == "whisper"
    assert (out / "notes.txt").read_text() == "mine"


def test_other_models_are_refused_in_one_line(steer: Run, codec_folder: Path, tmp_path: Path) -> None:
    code, _, err = steer("export", codec_folder, tmp_path / "out")
    assert code == 2 and err.count("\n") == 1 and "only Whispers of openai-whisper are exported" in err
    assert not (tmp_path / "out").exists()


def test_a_process_that_does_nothing_else_knows_the_starters(tmp_path: Path) -> None:
    command = "import sys; from apps.cli import main; main(['export', 'starter:none', sys.argv[1]])"
    done = subprocess.run([sys.executable, "-c", command, tmp_path / "out"], capture_output=True, text=True)
    assert done.returncode == 2 and "there is no starter model 'none'" in done.stderr
