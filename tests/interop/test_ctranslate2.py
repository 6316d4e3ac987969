"""The released ctranslate2 and faster-whisper: their files are read as they read them, and ours by them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hooks import open_model, read_clip
from tests.ct2_files import HOW, ct2_folder
from tests.interop.peer import Peer
from tests.real_weights import VARIABLE

pytestmark = pytest.mark.interop
whisper = pytest.importorskip("whisper", reason="extra whisper")
PACKAGES = ("ctranslate2>=4.6,<5", "faster-whisper>=1.2,<2")
CLIPS = ("ljspeech/LJ001-0020", "speech_misc/sb_spk2_snt1")


def module_of_whole_size() -> Any:
    """Random weights, narrow, but with a window and a vocabulary as published, which ctranslate2 insists on."""
    dims = whisper.model.ModelDimensions(80, 1500, 64, 2, 2, 51_864, 448, 64, 4, 2)
    torch.manual_seed(0)
    module = whisper.model.Whisper(dims).eval()
    with torch.no_grad():
        for value in module.parameters():
            value.copy_(torch.randn_like(value) * 0.2)
    return module


def test_the_same_model(peer: Callable[..., Peer], tmp_path: Path, request: pytest.FixtureRequest) -> None:
    module, real = module_of_whole_size(), os.environ.get(VARIABLE)
    mels = {"tiny": torch.randn(1, 80, 3000).clamp(-1, 1)}
    if real:
        recordings: Path = request.getfixturevalue("recordings")
        real_weights: Path = request.getfixturevalue("real_weights")
        clips = {name: read_clip(recordings / f"{name}.flac").resampled(16_000).mixed(1) for name in CLIPS}
        for name, clip in clips.items():
            save_file({"x": clip.waveform[0].contiguous()}, tmp_path / f"{Path(name).name}.safetensors")
        files = [str(tmp_path / f"{Path(name).name}.safetensors") for name in clips]
        (tmp_path / "clips.json").write_text(json.dumps(files))
        sound = whisper.pad_or_trim(clips[CLIPS[0]].waveform[0])
        mels["real"] = whisper.log_mel_spectrogram(sound)[None]
    save_file(mels, tmp_path / "mel.safetensors")
    save_file({name: value.contiguous() for name, value in module.state_dict().items()}, tmp_path / "state.safetensors")
    (tmp_path / "dims.json").write_text(json.dumps(asdict(module.dims)))
    ours = {how: lambda path, how=how: ct2_folder(path, module, how) for how in HOW}  # type: ignore[misc]
    theirs = peer("with_ctranslate2.py", ours, *PACKAGES).folder

    def agree(folder: Path, answer: Path, mel: str) -> Any:
        model = open_model(folder)
        with torch.no_grad():
            found = model.module.encoder(mels[mel])
        expected = load_file(answer)["x"]
        assert expected.std() > 0.1
        torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-3)
        return model

    for path in sorted(path for side in ("ours", "theirs") for path in (theirs / side).iterdir() if path.is_dir()):
        model = agree(path, path.with_name(f"{path.name}.safetensors"), "tiny")
        # in int8, too, it is near what it was made from; fp32 is that
        for name, value in model.module.state_dict().items():
            assert (value - module.state_dict()[name]).abs().max() <= 0.02 * value.abs().max(), (path.name, name)
            assert path.name != "float32" or torch.equal(value, module.state_dict()[name])
    assert len(list((theirs / "theirs").glob("*.safetensors"))) == 7
    if not real:
        return
    texts = json.loads((theirs / "real.json").read_text())
    assert len(texts) == 2 * len(CLIPS)
    for name in ("tiny.en", "base"):
        model = agree(real_weights / "ct2" / name, theirs / f"{name}.safetensors", "real")
        for clip in CLIPS:
            options = {"temperature": 0.0, "condition_on_previous_text": False, "language": "en"}
            assert model.transcribe(clips[clip], **options) == texts[f"{name} {Path(clip).name}"], (name, clip)
