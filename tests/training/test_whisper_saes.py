"""From sound to SAEs of a small random Whisper: the same frames as `capture`, the same files as `steer train`."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from evaluation.nonspeech import KINDS, Nonspeech
from hooks import open_model
from hooks.capture import capture
from hooks.clip import Clip
from steer.sae import SAE
from training import whisper_saes
from training.whisper_frames import (
    PACK_HOP,
    PACK_RATE,
    SAMPLE_RATE,
    batched,
    block_sites,
    frames_of,
    open_encoder,
    recorded,
    valid_sounds,
    write_encoder,
    write_valid,
)

pytest.importorskip("whisper")
WIDTH, LAYERS = 16, 2


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint as openai-whisper's are: half precision."""
    from whisper.model import ModelDimensions, Whisper

    torch.manual_seed(0)
    dims = ModelDimensions(80, 1500, WIDTH, 2, LAYERS, 51864, 64, WIDTH, 2, 1)
    module = Whisper(dims)
    torch.nn.init.zeros_(module.decoder.positional_embedding)  # the library leaves it to the checkpoint
    module = module.half()
    path = tmp_path_factory.mktemp("whisper") / "small.en.pt"
    torch.save({"dims": vars(dims), "model_state_dict": module.state_dict()}, path)
    return path


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings as training.pitched keeps them: three clips, one too short, one silent."""
    rng, waves, lines, first = np.random.default_rng(0), [], [], 0
    for group, frames, level in (("digits", 60, 0.2), ("digits", 90, 0.1), ("notes", 20, 0.3), ("notes", 90, 0.0)):
        waves.append(torch.from_numpy(level * rng.standard_normal(frames * PACK_HOP)).half())
        lines.append(f"{group} {first} {frames}")
        first += frames
    path = tmp_path_factory.mktemp("pack") / "pack.safetensors"
    save_file({"wave": torch.cat(waves)}, path, {"clips": "\n".join(lines)})
    return path


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A subset with clips of two splits."""
    folder = tmp_path_factory.mktemp("audio") / "digits"
    folder.mkdir()
    rows = ["path,split,label,text"]
    for index, split in enumerate(("valid", "valid", "test")):
        wave_N = 0.1 * np.random.default_rng(index).standard_normal(2 * SAMPLE_RATE)
        soundfile.write(folder / f"{index}.wav", wave_N, SAMPLE_RATE)
        rows.append(f"{index}.wav,{split},one,one")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder.parent


def test_frames_are_those_that_capture_gives(checkpoint: Path, tmp_path: Path) -> None:
    encoder = write_encoder(checkpoint, tmp_path / "small.safetensors")
    model, opened = open_encoder(encoder, "whisper:small"), open_model(f"whisper:{checkpoint}")
    sites = block_sites(encoder)
    assert sites == [f"encoder.{index}" for index in range(LAYERS)]
    waves = [wave_N[: 4 * SAMPLE_RATE + 100] for _, wave_N in Nonspeech(0).sounds(3)]
    found = frames_of(model, waves, sites, batch=2)
    clips = [Clip(wave_N[None], SAMPLE_RATE) for wave_N in waves]
    expected = [captured.activations for captured in capture(opened, clips, sites)]
    for site in sites:
        expected_ND = torch.cat([activations[site][0] for activations in expected])
        assert found[site].dtype == torch.float16
        torch.testing.assert_close(found[site].float(), expected_ND, atol=2e-3, rtol=2e-3)
    assert len(found[sites[0]]) == sum(-(-len(wave_N) // 320) for wave_N in waves)


def test_weights_of_another_model_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    encoder = write_encoder(checkpoint, tmp_path / "small.safetensors")
    weights = load_file(encoder)
    weights.pop("encoder.conv1.bias")
    dims = json.dumps(torch.load(checkpoint, weights_only=True)["dims"])
    save_file(weights, tmp_path / "less.safetensors", {"dims": dims})
    with pytest.raises(ValueError, match=r"encoder\.conv1\.bias"):
        open_encoder(tmp_path / "less.safetensors", "whisper:small")


def test_recorded_clips_are_resampled_and_short_or_silent_ones_left_out(pack: Path) -> None:
    waves = list(recorded(pack, 0, torch.device("cpu")))
    assert [len(wave_N) for wave_N in waves] == [f * PACK_HOP * SAMPLE_RATE // PACK_RATE for f in (60, 90)]
    assert float(waves[0].std()) == pytest.approx(
        0.2 * (2 / 3) ** 0.5, rel=0.05
    )  # two thirds of the band of white noise
    assert len(list(recorded(pack, 1, torch.device("cpu")))) == 1


def test_valid_clips_are_those_of_the_split(audio: Path, tmp_path: Path) -> None:
    path = write_valid(audio, tmp_path / "valid.safetensors", seconds=5)
    waves = list(valid_sounds(path, 0, torch.device("cpu")))
    assert sorted(load_file(path)) == ["digits.0", "digits.1"]
    assert [len(wave_N) for wave_N in waves] == [2 * SAMPLE_RATE] * 2
    assert len(load_file(write_valid(audio, tmp_path / "less.safetensors", seconds=3))) == 1
    assert [len(some) for some in batched(waves * 2, 3)] == [3, 1]


def test_from_sound_to_files(checkpoint: Path, pack: Path, audio: Path, tmp_path: Path) -> None:
    prepared, out, sent = tmp_path / "prepared", tmp_path / "run", tmp_path / "sent"
    whisper_saes.prepare(audio, [checkpoint], prepared)
    options = {
        "models": "small.en", "layers": "1", "seeds": "0,3", "ks": "2,4", "steps": 40, "search_steps": 20,
        "batch": 256, "windows": 2, "every_k": True, "nonspeech": len(KINDS), "processes": 1, "device": "cpu",
    }  # fmt: skip
    whisper_saes.train(prepared, pack, out, **options)  # type: ignore[arg-type]
    results = json.loads((out / "results.json").read_text())
    assert [row["k"] for row in results["search"]] == [2, 4]
    assert [(row["site"], row["seed"], row["steps"]) for row in results["saes"]] == [
        ("encoder.1", 0, 40), ("encoder.1", 3, 40),
    ]  # fmt: skip
    assert results["frames"]["small.en"][1] == 200

    sae = SAE.load_all(out / "small.en", seed=3)["encoder.1"]
    assert (sae.d_in, sae.d_sae, sae.activation, sae.info.model) == (WIDTH, 8 * WIDTH, "batchtopk", "whisper:small.en")
    frames = load_file(out / "frames" / "small.en" / "encoder.1.safetensors")
    assert whisper_saes.measure(sae, frames["valid"]).items() <= sae.info.metrics.items()
    assert sae.info.metrics["explained_by_channel"] < 1 and sae.info.metrics["l0_in_training"] == pytest.approx(
        sae.k or 0, rel=0.1
    )
    assert {row["explained_variance"] for row in results["saes"]} >= {sae.info.metrics["explained_variance"]}

    whisper_saes.train(prepared, pack, out, **options)  # type: ignore[arg-type]
    assert json.loads((out / "results.json").read_text()) == results  # all was there

    size = sum(file.stat().st_size for file in (out / "small.en" / "encoder.1" / "seed-0").iterdir())
    whisper_saes.export(out, "small.en:0,small.en:3", sent, limit=size + 20_000)
    tars = sorted(sent.glob("*.tar"))
    assert len(tars) == 2 and (sent / "results.json").exists()
    for path in tars:
        with tarfile.open(path) as tar:
            tar.extractall(tmp_path / "back", filter="data")
    for seed in (0, 3):
        back, made = (SAE.load_all(folder / "small.en", seed=seed)["encoder.1"] for folder in (tmp_path / "back", out))
        assert torch.equal(back.W_enc, made.W_enc)
