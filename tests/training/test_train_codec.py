from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import typer
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner

from hooks import open_model
from hooks.families.source_filter import SourceFilterCodec
from hooks.networks.source_filter import SourceFilterConfig
from training import pitched, train_codec
from training.pitched import Batches, Recordings
from training.source_filter_losses import Weights
from training.train_codec import Trainer, main, renamed, valid_clips

RATE, HOP, FRAMES = 24_000, 320, 64
SMALL = SourceFilterConfig(
    dimension=8, encoder_width=16, encoder_layers=2, decoder_width=16, decoder_layers=2, pitch_channels=2, bands=16
)


def tone(hz: float, seconds: float = 1.0) -> np.ndarray:
    phase = 2 * np.pi * hz * np.arange(round(seconds * RATE)) / RATE
    return (0.1 * sum(np.sin(k * phase) / k for k in range(1, 20))).astype(np.float32)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that learns in no time; what counts here is that the parts fit, not how it sounds."""
    monkeypatch.setattr(train_codec, "CONFIG", SMALL)


@pytest.fixture
def batches() -> Batches:
    labels = torch.tensor([[57.0, 1.0]]).expand(75, -1)
    data = Recordings(torch.from_numpy(tone(220.0)).half(), labels, {"notes": [(0, 75)]}, RATE, HOP)
    return Batches(data, 1, FRAMES, seed=0)


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    """A collection of notes, with a clip of each split."""
    folder = tmp_path / "audio" / "notes"
    folder.mkdir(parents=True)
    for split, hz in (("train", 220.0), ("valid", 330.0)):
        soundfile.write(folder / f"{split}.wav", tone(hz), RATE)
    (folder / "manifest.csv").write_text("path,split,label,text\ntrain.wav,train,a3,\nvalid.wav,valid,e4,\n")
    return folder.parent


@pytest.fixture
def process_settings() -> Iterator[None]:
    """What the script sets for its process."""
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    yield
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(precision)


def trainer(batches: Batches, folder: Path, seconds: float = 60.0) -> Trainer:
    return Trainer(batches, folder, seconds, 1e-3, Weights())


def test_the_prototypes_names_are_changed_and_others_left() -> None:
    state = {f"encoder.net.blocks.0.{name}.weight": torch.ones(1) for name in ("dw", "norm", "a", "b", "pwconv1")}
    assert [name.split(".")[-2] for name in renamed(state)] == ["dwconv", "norm", "pwconv1", "pwconv2"]


@torch.no_grad()
def test_latents_have_mean_0_and_deviation_1_at_the_start(
    batches: Batches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, drawn = trainer(batches, tmp_path), batches.draw()
    monkeypatch.setattr(batches, "draw", lambda: drawn)
    one.fit_ends()
    z_BDT = one.model.encode(drawn[0])[:, 1:]
    # means of float32
    torch.testing.assert_close(z_BDT.mean((0, 2)), torch.zeros(7), atol=1e-4, rtol=0)
    torch.testing.assert_close(z_BDT.std((0, 2)), torch.ones(7), atol=1e-3, rtol=0)
    assert torch.equal(one.average["encoder.net.out.bias"], one.model.encoder.net.out.bias)


def test_some_steps_write_a_log_and_weights_that_open(batches: Batches, tmp_path: Path) -> None:
    one = trainer(batches, tmp_path, seconds=5)
    valid = [("notes", tone(330.0))]
    one.run(one.loss, lambda: one.check(valid), log_every=1, check_every=2)
    one.check(valid)
    assert one.step >= 2 and one.used >= 1.0
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert {"total", "spectral", "pitch", "voicing", "keep", "level"} <= rows[0].keys()
    assert {"valid_mel", "valid_mel_notes", "valid_level_notes"} <= rows[1].keys()
    codec = open_model(tmp_path)
    assert isinstance(codec, SourceFilterCodec)
    assert codec.module.config == SMALL
    assert {value.dtype for value in load_file(tmp_path / "model.safetensors").values()} == {torch.float16}
    audio_BCN = torch.from_numpy(tone(220.0))[None, None]
    assert codec.run(audio_BCN).shape == audio_BCN.shape


def test_a_check_keeps_the_best_and_leaves_the_training_alone(batches: Batches, tmp_path: Path) -> None:
    one = trainer(batches, tmp_path)
    for _ in range(2):
        one.learn(one.loss()["total"])
    before = {name: value.clone() for name, value in one.model.state_dict().items()}
    assert not torch.equal(before["directions"], one.average["directions"])
    found = one.check([("notes", tone(330.0))])
    assert all(torch.equal(value, before[name]) for name, value in one.model.state_dict().items())
    assert all(math.isfinite(value) for value in found.values())
    exported = load_file(tmp_path / "model.safetensors")
    assert torch.equal(exported["directions"], one.average["directions"].half())
    # without speech the score is the mel distance, and what was said is rounded
    assert one.best == pytest.approx(found["valid_mel"] + 20, abs=1e-3)
    (tmp_path / "model.safetensors").unlink()
    one.check([("notes", tone(330.0))])  # as good as the best, and no better
    assert not (tmp_path / "model.safetensors").exists()


def test_speech_is_checked_for_intelligibility(batches: Batches, tmp_path: Path) -> None:
    pytest.importorskip("pystoi", reason="extra eval: STOI")
    found = trainer(batches, tmp_path).check([("ljspeech", tone(220.0)), ("notes", tone(330.0))])
    assert found["valid_stoi"] == found["valid_stoi_ljspeech"] < 1
    assert "valid_stoi_notes" not in found
    assert found["valid_mel"] == pytest.approx((found["valid_mel_ljspeech"] + found["valid_mel_notes"]) / 2, abs=1e-3)


def test_a_stopped_run_goes_on_where_it_was(batches: Batches, tmp_path: Path) -> None:
    one = trainer(batches, tmp_path)
    for _ in range(2):
        one.learn(one.loss()["total"])
    one.used, one.best = 0.25, 3.0
    one.save()
    two = trainer(batches, tmp_path)
    two.resume()
    assert (two.step, two.used, two.best) == (2, 0.25, 3.0)
    drawn = batches.draw()
    for each in (one, two):
        torch.manual_seed(1)
        each.learn(each.losses(*drawn, each.used)["total"])
    assert all(torch.equal(p, q) for p, q in zip(one.model.parameters(), two.model.parameters(), strict=True))
    assert all(torch.equal(value, two.average[name]) for name, value in one.average.items())


@pytest.mark.parametrize("as_folder", [True, False])
def test_training_starts_from_exported_weights(as_folder: bool, batches: Batches, tmp_path: Path) -> None:
    one = trainer(batches, tmp_path)
    path = one.export()
    (tmp_path / "two").mkdir()
    two = trainer(batches, tmp_path / "two")
    two.start_from(tmp_path if as_folder else path)
    for name, value in two.model.named_parameters():
        assert torch.equal(value, one.average[name].half().float())
        assert torch.equal(value, two.average[name])


def test_valid_clips_are_a_few_of_each_collection(audio: Path) -> None:
    folder = audio / "digits"
    folder.mkdir()
    rows = ["path,split,label,text"]
    for index in range(9):
        soundfile.write(folder / f"{index}.wav", (index > 0) * tone(100.0 + index, 4.0), RATE)
        rows.append(f"{index}.wav,valid,x,")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    (audio / "orders").mkdir()
    soundfile.write(audio / "orders" / "a.wav", tone(100.0), RATE)
    (audio / "orders" / "manifest.csv").write_text("path,split,label,text\na.wav,valid,x,\n")
    found = valid_clips(audio)
    assert [group for group, _ in found] == ["digits"] * train_codec.VALID_CLIPS + ["notes"]
    assert {len(wave) for group, wave in found if group == "digits"} == {round(train_codec.VALID_S * RATE)}
    assert all(np.abs(wave).max() > 0.01 for _, wave in found)


def test_the_script(audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, process_settings: None) -> None:
    def labels(wave: np.ndarray, rate: int, hop: int, frames: int, group: str, note: float | None) -> Tensor:
        return torch.tensor([[57.0, 1.0]]).repeat(frames, 1)

    monkeypatch.setattr(pitched, "pitch_labels", labels)
    app = typer.Typer()
    app.command()(main)
    out, cache = tmp_path / "out", tmp_path / "cache"
    sizes = ["--batch", "1", "--sentences", "0", "--check", "2", "--threads", "1", "--device", "cpu"]
    command = [str(audio), "--out", str(out), "--cache", str(cache), "--seconds", "1.5", *sizes]
    first = CliRunner().invoke(app, command, catch_exceptions=False)
    assert first.exit_code == 0, first.output
    begin, end = (json.loads(line) for line in first.output.splitlines())
    assert end["steps"] >= 1
    assert {"valid_mel", "valid_stoi", "valid_mel_notes"} <= begin.keys() & end.keys()
    assert len(list(cache.glob("pitched-*.safetensors"))) == 1
    exported = (out / "model.safetensors").read_bytes()
    assert open_model(out).module.config == SMALL
    # a finished run is at its end, and what it exported stays
    again = CliRunner().invoke(app, command, catch_exceptions=False)
    assert json.loads(again.output)["steps"] == end["steps"]
    assert (out / "model.safetensors").read_bytes() == exported
    # from its weights
    other = tmp_path / "other"
    command = [str(audio), "--out", str(other), "--cache", str(cache), "--seconds", "0.01", "--start", str(out), *sizes]
    started = CliRunner().invoke(app, command, catch_exceptions=False)
    assert started.exit_code == 0, started.output
    assert (other / "model.safetensors").is_file()
