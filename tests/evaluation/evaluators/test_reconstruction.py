"""Of a codec of which all is known: it halves the sound, and its quantiser rounds to sixteenths."""

from __future__ import annotations

import csv
import math
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from torch import Tensor, nn

from evaluation import quality, yardsticks
from evaluation.evaluators.reconstruction import (
    COLUMNS,
    INPUT,
    ReconstructionConfig,
    by_subset,
    codec_of,
    fitted,
    round_trips,
    run,
)
from evaluation.polyphony import MADE
from evaluation.report import Report, Share
from hooks import AudioFileError, Codec, ModelError, Site, Transcriber
from steer import SAE, SteeredModel
from steer.acoustics import measure
from steer.sae import SAEInfo

HOP = 4
HALF_DB = 20 * math.log10(2)
NAMES = ("speech_misc", "notes", "esc10", "noise_rir")


class Halving(Codec):
    hop_length = HOP

    def __init__(self, sample_rate: int = 16_000, quantizer: bool = True) -> None:
        site = Site("latent", "latent", width=HOP, frame_rate=sample_rate / HOP)
        super().__init__(nn.ModuleDict({"latent": nn.Identity()}), [site], name="halving", sample_rate=sample_rate)
        self.has_quantizer = quantizer
        self.quantize = False

    def run(self, audio_BCN: Tensor) -> Tensor:
        assert self.has_quantizer or not self.quantize
        filled_BN = nn.functional.pad(audio_BCN[:, 0], (0, -audio_BCN.shape[-1] % HOP))
        z_BTD = self.module["latent"](filled_BN.view(len(filled_BN), -1, HOP))  # type: ignore[operator]
        if self.quantize:
            z_BTD = (16 * z_BTD).round() / 16
        return 0.5 * z_BTD.reshape(len(filled_BN), 1, -1)[..., : audio_BCN.shape[-1]]


def with_sae(codec: Codec, gain: float = 0.5) -> SteeredModel:
    """With an SAE whose reconstruction is `gain` times the latent."""
    sae = SAE(HOP, 2 * HOP, "relu", info=SAEInfo(site="latent"))
    with torch.no_grad():
        signs = torch.cat([torch.eye(HOP), -torch.eye(HOP)])
        sae.W_enc.copy_(signs.T)
        sae.W_dec.copy_(gain * signs)
        sae.b_enc.zero_()
    return SteeredModel(codec, sae)


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two clips of each subset, of split test: bursts of harmonics in noise, and an impulse response."""
    root = tmp_path_factory.mktemp("audio")
    time_N = torch.arange(16_000) / 16_000
    generator = torch.Generator().manual_seed(0)
    for name in NAMES:
        (root / name).mkdir()
        rows = [["path", "split", "label"]]
        for index in range(2):
            tone_N = sum(torch.sin(2 * torch.pi * 150 * (index + 1) * k * time_N) / k for k in range(1, 12))
            sound_N = 0.1 * tone_N * (time_N % 0.5 < 0.4) + 0.01 * torch.randn(16_000, generator=generator)
            soundfile.write(root / name / f"{index}.wav", sound_N.numpy(), 16_000)
            rows.append([f"{index}.wav", "test", "rir" if name == "noise_rir" and index else "other"])
        with (root / name / "manifest.csv").open("w", newline="") as file:
            csv.writer(file).writerows(rows)
    return root


@pytest.fixture(autouse=True)
def few_frames_with_pitch(monkeypatch: pytest.MonkeyPatch) -> None:
    """CREPE takes most of the time of an evaluation."""
    monkeypatch.setattr(quality, "measure", partial(quality.measure, pitch_frames=12))


def measured(audio: Path, subject: SteeredModel | Codec, **options: object) -> Report:
    values: dict[str, Any] = {"subsets": ("notes",), "yardsticks": False, **options}
    return run(ReconstructionConfig(audio=audio, subject=subject, **values))


def paths(report: Report) -> list[str]:
    return list(dict.fromkeys(row["path"] for row in report.rows))


# --- paths ---


def test_every_path_is_measured_and_the_codec_is_left_as_it_was(audio: Path) -> None:
    codec = Halving()
    report = measured(audio, with_sae(codec))
    assert paths(report) == ["continuous", "through the SAE", "quantised"]
    continuous, through_sae, quantised = report.rows
    assert list(continuous) == ["clips", "path", "count", *COLUMNS]
    assert continuous["count"] == 2
    assert continuous["SDR (dB)"].value == pytest.approx(HALF_DB, abs=1e-3)
    assert continuous["level (± dB)"].value == pytest.approx(HALF_DB, abs=1e-3)
    assert through_sae["level (± dB)"].value == pytest.approx(2 * HALF_DB, abs=1e-3)
    assert quantised["SDR (dB)"].value < HALF_DB
    assert 0 < continuous["mel (dB)"].value < through_sae["mel (dB)"].value
    # with their sign in the scores of the clips
    assert [row["level_db"] for row in report.clips[:2]] == pytest.approx([-HALF_DB, -2 * HALF_DB], abs=1e-3)
    assert codec.quantize is False


def test_the_codec_is_left_as_it_was_after_an_error() -> None:
    codec = Halving()
    codec.quantize = True
    with pytest.raises(KeyboardInterrupt):
        for _ in round_trips(codec, torch.zeros(1, 1, 8)):
            raise KeyboardInterrupt
    assert codec.quantize is True


def test_without_an_sae_and_without_a_quantiser(audio: Path) -> None:
    assert paths(measured(audio, Halving())) == ["continuous", "quantised"]
    assert paths(measured(audio, with_sae(Halving(quantizer=False)))) == ["continuous", "through the SAE"]
    assert paths(measured(audio, Halving(quantizer=False))) == ["continuous"]


def test_other_codecs_stand_beside_it_at_its_rate(audio: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    also = {"plain": Halving(quantizer=False), "lower": with_sae(Halving(8_000), 1.0)}
    monkeypatch.setattr(ReconstructionConfig, "another", lambda config, name: also[name])
    report = measured(audio, Halving(quantizer=False), also=tuple(also))
    names = ["continuous", "plain: continuous", "lower: continuous", "lower: through the SAE", "lower: quantised"]
    assert paths(report) == names
    first, plain, lower, through_sae, _ = report.rows
    assert {key: plain[key] for key in COLUMNS} == {key: first[key] for key in COLUMNS}
    # what is above its band is lost
    assert lower["mel (dB)"].value > first["mel (dB)"].value + 0.5
    assert through_sae["mel (dB)"].value == pytest.approx(lower["mel (dB)"].value, abs=1e-3)
    assert report.about["also"] == ["plain", "lower"]
    assert report.about["sample rate"] == 16_000


def test_an_output_is_made_as_long_as_its_reference() -> None:
    x_N = torch.zeros(1_001)
    assert fitted(torch.ones(1, 2, 400), 8_000, x_N, 16_000)[:700].mean() == pytest.approx(1, abs=0.01)
    for samples in (400, 501, 600):
        assert fitted(torch.ones(1, 2, samples), 8_000, x_N, 16_000).shape == x_N.shape


def test_a_model_that_is_no_codec() -> None:
    recogniser = Transcriber(nn.Identity(), name="recogniser", sample_rate=16_000)
    with pytest.raises(ModelError, match="recogniser: has no round trip to measure"):
        codec_of(recogniser)


# --- yardsticks ---


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
def test_yardsticks_stand_beside_it(audio: Path) -> None:
    report = measured(audio, Halving(quantizer=False), yardsticks=True, clips=1)
    names = [one.name for one in yardsticks.YARDSTICKS]
    assert paths(report) == ["continuous", *names]
    assert report.about["yardsticks"] == names
    assert report.about["left out"] == {}
    # 64 kbit/s is nearer than half the level
    assert report.rows[2]["SDR (dB)"].value > HALF_DB + 3


def test_yardsticks_without_ffmpeg(audio: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: None)
    report = measured(audio, Halving(quantizer=False), yardsticks=True)
    assert paths(report) == ["continuous"]
    assert report.about["left out"] == {"yardsticks": "ffmpeg is not installed"}
    assert measured(audio, Halving()).about["left out"] == {"yardsticks": "not asked for"}


# --- subsets and columns ---


def test_measures_of_speech_and_pitch_are_for_such_sounds_only(audio: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("pystoi", "pesq", "torchcrepe"):
        pytest.importorskip(module, reason="extra eval")
    monkeypatch.setattr("evaluation.evaluators.reconstruction.dnsmos", lambda y_N, rate: 3.0)
    monkeypatch.setattr(quality, "dnsmos", lambda y_N, rate: 2.0)
    monkeypatch.setattr(quality, "measure", measure)  # every frame counts
    report = measured(audio, Halving(quantizer=False), subsets=["speech_misc", "notes", "chords"], clips=1)
    rows = {(row["clips"], row["path"]): row for row in report.rows}
    clear = rows["speech_misc", INPUT]
    assert clear["DNSMOS"].value == 3.0
    assert all(clear[head] is None for head in COLUMNS if head != "DNSMOS")
    speech = rows["speech_misc", "continuous"]
    assert speech["STOI"].value == pytest.approx(1, abs=1e-3)
    assert speech["PESQ"].value == pytest.approx(4.64, abs=0.01)
    assert speech["DNSMOS"].value == 2.0
    assert isinstance(speech["pitch within 50 cents"], Share)
    assert str(speech["pitch within 50 cents"]).startswith("100 %")
    notes = rows["notes", "continuous"]
    assert [head for head in COLUMNS if notes[head] is None] == ["STOI", "PESQ", "DNSMOS"]
    chords = rows["chords", "continuous"]
    assert [head for head in COLUMNS if chords[head] is None] == ["STOI", "PESQ", "DNSMOS", "pitch within 50 cents"]
    assert ("notes", INPUT) not in rows
    assert "| speech_misc | input | 1 | - | - | - | 3 [3, 3] |" in report.markdown()


def test_dnsmos_that_is_not_installed_is_said(audio: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("pystoi", "pesq"):
        pytest.importorskip(module, reason="extra eval")
    monkeypatch.setattr("evaluation.evaluators.reconstruction.dnsmos", lambda y_N, rate: None)
    monkeypatch.setattr("evaluation.evaluators.reconstruction.dnsmos_absent", lambda: "speechmos is not installed")
    monkeypatch.setattr(quality, "dnsmos", lambda y_N, rate: None)
    report = measured(audio, Halving(quantizer=False), subsets=["speech_misc"], clips=1)
    assert report.about["left out"]["DNSMOS"] == "speechmos is not installed"
    assert [row["DNSMOS"] for row in report.rows] == [None]
    assert "DNSMOS" not in measured(audio, Halving(), clips=1).about["left out"]


def test_by_default_all_subsets_that_are_there(audio: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluation.evaluators.reconstruction.has_speech", lambda labels: False)
    report = measured(audio, Halving(quantizer=False), subsets=(), clips=2)
    counts = {row["clips"]: row["count"] for row in report.rows}
    # the impulse response is left out
    assert counts == {"speech_misc": 2, "notes": 2, "esc10": 2, "noise_rir": 1, **dict.fromkeys(MADE, 2)}
    missing = {name for name in report.about["left out"] if name != "yardsticks"}
    assert missing == {"ljspeech", "digits", "singing", "music"}


def test_subsets_that_are_not_there(audio: Path, tmp_path: Path) -> None:
    with pytest.raises(AudioFileError, match="no clips of split 'valid'"):
        measured(audio, Halving(), split="valid")
    with pytest.raises(AudioFileError, match=r"manifest\.csv: no such file"):
        measured(audio, Halving(), subsets=["chords", "music"])
    with pytest.raises(AudioFileError, match=r"manifest\.csv: no such file"):
        measured(tmp_path, Halving(), subsets=())
    assert len(measured(tmp_path, Halving(), subsets=["drums"], clips=1).rows) == 2


def test_a_table_for_each_subset(audio: Path) -> None:
    report = measured(audio, Halving(), subsets=["esc10", "drums"], clips=1)
    first, second = by_subset(report)
    assert (first.title, second.title) == ("esc10: 1 clip", "drums: 1 clip")
    assert list(second.rows[0]) == ["path", *COLUMNS]
    assert [row["path"] for row in second.rows] == ["continuous", "quantised"]
    assert by_subset(measured(audio, Halving()))[0].title == "notes: 2 clips"
