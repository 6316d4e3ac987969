from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file

from hooks.networks.source_filter import SourceFilter, SourceFilterConfig
from steer import SAE, load_vectors
from steer.probes import load_probes
from training.build_latent import main

CONFIG = SourceFilterConfig(
    dimension=8, encoder_width=16, encoder_layers=2, decoder_width=16, decoder_layers=2, pitch_channels=2, bands=16
)
RATE = CONFIG.sample_rate


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    """Notes of several pitches and levels."""
    folder = tmp_path / "audio" / "notes"
    folder.mkdir(parents=True)
    rows = ["path,split,label,text,pitch_midi"]
    time_N = np.arange(round(0.5 * RATE)) / RATE
    for index, midi in enumerate((50, 57, 64, 70)):
        phase = 2 * np.pi * 440 * 2 ** ((midi - 69) / 12) * time_N
        wave = 0.02 * (index + 1) * sum(np.sin(k * phase) / k for k in range(1, 12))
        soundfile.write(folder / f"{index}.wav", wave.astype(np.float32), RATE, subtype="FLOAT")
        rows.append(f"{index}.wav,{'valid' if index == 3 else 'train'},x,,{midi}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "audio"


def test_everything_that_ships_is_made(
    audio: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torchcrepe", reason="extra eval")
    pytest.importorskip("sklearn", reason="extra eval")
    monkeypatch.setattr("training.build_latent.SIZE", 8)
    monkeypatch.setattr("training.build_latent.FRAMES", 48)
    torch.manual_seed(0)
    folder = tmp_path / "codec"
    folder.mkdir()
    save_file(SourceFilter(CONFIG).state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"architecture": "source_filter", **CONFIG.to_dict()}))
    out = tmp_path / "latent"
    main(
        audio, str(folder), out, tmp_path / "cache", "starter:codec",
        frames=2500, steps=10, probed=400, pairs=4, clips=1, sentences=0,
    )  # fmt: skip
    sae, vectors, probes = (
        SAE.load(out),
        load_vectors(out / "vectors.safetensors"),
        load_probes(out / "probes.safetensors"),
    )
    assert (sae.d_in, sae.d_sae, sae.info.model, sae.info.site) == (8, 64, "starter:codec", "latent")
    assert {"explained_variance", "pitch_probe_accuracy"} <= set(sae.info.metrics)
    assert {name: len(probe.bins.centres) for name, probe in probes.items()} == {
        "loudness": 20,
        "brightness": 20,
        "pitch": 66,
    }
    for attribute in ("loudness", "brightness", "pitch"):
        off = sae.info.extra["vectors_off_by"]
        ways = {f"{attribute}-{way}" for way in ("lstsq", "pairs", "probe")}
        best = vectors[attribute].name
        assert best in ways and all(off[best] <= off[way] for way in ways)
        assert ways - {best} <= set(vectors)
    assert "voicing" in vectors
    assert all(len(vector.vector) == 64 and vector.site == "latent" for vector in vectors.values())
    told = json.loads(capsys.readouterr().out)
    assert told["shipped"]["voicing"] == "voicing-lstsq"
