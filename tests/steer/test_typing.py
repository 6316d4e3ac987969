"""What a type checker says of a model whose kind it does not know."""

from __future__ import annotations

from pathlib import Path

import pytest

import hooks

ROOT = Path(hooks.__file__).parents[1]
RIGHT = """
import torch
from hooks.model import AudioModel
from steer.steered import SteeredModel

def use(model: AudioModel, steered: SteeredModel) -> SteeredModel:
    for one in (model, steered):
        one.resynthesize("a.wav").seconds
        one.embed("a.wav", grad=True)
        one.run(one.prepare("a.wav"), grad=True)
        one.transcribe("a.wav", language="en").segments
        one.decode(one.encode(one.prepare("a.wav")))
        one.site("latent")
        one.quantize = False
    model.eval().half().resynthesize("a.wav")
    steered.features("a.wav", grad=True)["latent"]
    return steered.to("cuda").eval()
"""
WRONG = {
    "model.resynthesise('a.wav')": '"AudioModel" has no attribute "resynthesise"',
    "steered.resynthesise('a.wav')": '"SteeredModel" has no attribute "resynthesise"',
    "model.eval().transscribe('a.wav')": '"AudioModel" has no attribute "transscribe"',
    "steered.to('cpu').feature('a.wav')": '"SteeredModel" has no attribute "feature"',
    "steered.run()": 'Missing positional argument "audio_BCN"',
    "model.embed('a.wav', gradient=True)": 'Unexpected keyword argument "gradient"',
}


def test_a_misspelt_method_is_an_error(tmp_path: Path) -> None:
    api = pytest.importorskip("mypy.api", reason="extra dev")
    wrong = "".join(f"    {line}\n" for line in WRONG)
    script = tmp_path / "script.py"
    script.write_text(f"{RIGHT}\ndef misuse(model: AudioModel, steered: SteeredModel) -> None:\n{wrong}")
    # what the two classes say of themselves, and nothing of what they import: that would take a minute
    files = [str(script), *(str(ROOT / name) for name in ("hooks/model.py", "steer/steered.py"))]
    flags = ["--follow-imports=skip", "--config-file=", f"--cache-dir={tmp_path}", "--strict"]
    report, _, _ = api.run([*flags, *files])
    told = [line for line in report.splitlines() if line.startswith(f"{script}:") and " error: " in line]
    assert len(told) == len(WRONG), report
    for line, message in zip(told, WRONG.values(), strict=True):
        assert message in line
