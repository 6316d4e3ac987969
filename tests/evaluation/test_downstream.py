from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor, nn

from evaluation.dataset import Dataset, LabelledSound
from evaluation.downstream import DownstreamError, clip_sets, evaluate
from hooks import Site, Transcriber
from hooks.clip import AudioFileError
from hooks.model import Codec, Encoder, Source
from hooks.timing import sound_until
from steer import SAE, SAEError, SteeredModel

RATE = 16_000


class Keeps(nn.Module):
    """An SAE of which all is known: it keeps `gains` of each channel."""

    def __init__(self, *gains: float) -> None:
        super().__init__()
        self.gains = torch.tensor(gains)

    def encode(self, x: Tensor) -> Tensor:
        return x

    def decode(self, f: Tensor) -> Tensor:
        return f * self.gains


def sound(level: float, **labels: str) -> LabelledSound:
    return LabelledSound(torch.full((RATE // 2,), level), "x", labels)


# --- a recogniser: "hello" unless axis 1 is above 0.8 ---


@pytest.fixture
def words() -> None:
    pytest.importorskip("whisper", reason="extra whisper")
    pytest.importorskip("jiwer", reason="extra whisper")


@pytest.mark.usefixtures("words")
def test_word_errors_with_and_without(listener: Transcriber) -> None:
    clips = [sound(-0.5, text="hello"), sound(0.5, text="Hello, you"), sound(-0.9, text="hello")]
    good, loud = Keeps(1, 1, 1, 1), Keeps(1, 2, 1, 1)
    trained = SAE(4, 4, "relu")
    trained.info.extra["training"] = {"seed": 7}
    for weight in (trained.W_enc, trained.W_dec):
        weight.data.copy_(torch.eye(4))
    report = evaluate(listener, {"ear.0": [good, trained], "ear.1": [loud]}, [], clips)
    assert [(row["site"], row["seed"]) for row in report.rows] == [
        ("as it is", None),
        ("ear.0", None),
        ("ear.0", 7),
        ("ear.1", None),
    ]
    # "you" is missed, and the third clip is never heard; twice as far below zero the first is not either
    assert [row["errors"] for row in report.rows] == ["2 of 4 words"] * 3 + ["3 of 4 words"]
    assert [row["WER"].value for row in report.rows] == [0.5, 0.5, 0.5, 0.75]
    assert report.rows[0]["change"] is None
    same, changed = report.rows[1]["change"], report.rows[3]["change"]
    assert (same.value, same.low, same.high) == (0, 0, 0)
    assert (changed.value, changed.count) == (25, 3)
    assert changed.low < 25 < changed.high
    assert report.about["clips held out"] == 3
    # the model is left as it was
    assert listener.transcribe(clips[0].source) == "hello"


def test_padding_stays_as_it_is(listener: Transcriber) -> None:
    audio_BCN = torch.full((1, 1, 1600), 0.5)  # ten frames
    with SteeredModel(listener, {"ear.0": Keeps(3, 1, 1, 1)}).edit(mode="reconstruct", padding=False):
        with sound_until(0.04):
            x_BTD = listener.run(audio_BCN)
        with sound_until(0.0):
            nothing_BTD = listener.run(audio_BCN)
        everywhere_BTD = listener.run(audio_BCN)
    assert x_BTD[0, :, 0].tolist() == [1.5] * 4 + [0.5] * 6
    assert everywhere_BTD[0, :, 0].tolist() == [1.5] * 10
    assert nothing_BTD[0, :, 0].tolist() == [0.5] * 10


def test_an_sae_that_does_not_fit(listener: Transcriber) -> None:
    with pytest.raises(SAEError, match="5 wide, but site 'ear.0'"):
        evaluate(listener, {"ear.0": [SAE(5, 10, "relu")]}, [], [sound(0.5, text="hello")])


# --- an encoder: axis 0 and 1 are how far above and below zero a sound is ---


class Embeds(Encoder):
    def __init__(self, module: nn.Module) -> None:
        super().__init__(module, [Site("ear.0", "layers.0", frame_rate=100.0)], name="embeds", sample_rate=RATE)

    def embed(self, source: Source) -> Tensor:
        return self.module(self.prepare(source))[0]


@pytest.fixture
def encoder(listener: Transcriber) -> Embeds:
    return Embeds(listener.module)


def labelled(count: int, seed: int) -> list[LabelledSound]:
    """Of kind `sign` the label is on which side of zero, of kind `size` how far from it."""
    rng = np.random.default_rng(seed)
    clips = []
    for index in range(count):
        side = "above" if index % 2 else "below"
        level = (1 if index % 2 else -1) * (0.2 + 0.02 * rng.random())
        clips.append(sound(level, sign=side))
        size = (0.1, 0.5, 0.9)[index % 3]
        clips.append(sound(size + 0.02 * rng.random(), size=str(size)))
    return clips


def accuracies(report: Any, name: str) -> list[float]:
    return [row[name].value for row in report.rows]


def test_probe_accuracy_with_and_without(encoder: Embeds) -> None:
    pytest.importorskip("sklearn", reason="probes are fitted by scikit-learn")
    lost, none = Keeps(1, 0, 1, 1), Keeps(0, 0, 1, 1)
    report = evaluate(encoder, {"ear.0": [Keeps(1, 1, 1, 1), lost, none]}, labelled(12, 0), labelled(12, 1))
    # without the axis below zero "below" is far from both, and without any there is nothing to go by
    assert accuracies(report, "sign")[:2] == [1, 1]
    assert accuracies(report, "sign")[3] == 0.5
    assert accuracies(report, "size")[0] == accuracies(report, "size")[2] > 0.8
    assert accuracies(report, "size")[3] == 0.5
    labels = report.about["labels"]
    assert labels == ["sign=below", "size=0.1", "size=0.5", "size=0.9"]
    # all labels count the same in the mean, and changes are against the model as it is
    for row in report.rows:
        assert row["accuracy"].value == pytest.approx((row["sign"].value + 3 * row["size"].value) / 4)
    assert report.rows[0]["change"] is None
    same, changed = report.rows[1]["change"], report.rows[3]["change"]
    # the same answers about twelve clips: whether others would change is not known
    assert same.value == 0
    assert -15 < same.low < 0 < same.high < 15
    assert changed.value == pytest.approx(50 - 100 * report.rows[0]["accuracy"].value)
    assert changed.high < 0
    json.dumps(report.to_dict())


def test_probes_are_not_fitted_again(encoder: Embeds) -> None:
    """A fresh probe would read the label from the other form as well."""
    pytest.importorskip("sklearn", reason="probes are fitted by scikit-learn")
    train, held_out = ([one for one in labelled(12, seed) if "sign" in one.labels] for seed in (0, 1))
    report = evaluate(encoder, {"ear.0": [Keeps(-1, -1, 1, 1)]}, train, held_out)
    assert accuracies(report, "sign") == [1, 0]


# --- clips ---


def folder(root: Path, rows: dict[str, list[tuple[str, str, str]]]) -> Path:
    """{subset: [(split, label, text)]}"""
    for subset, clips in rows.items():
        (root / subset).mkdir(parents=True)
        with (root / subset / "manifest.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["path", "split", "label", "text"])
            for index, (split, label, text) in enumerate(clips):
                soundfile.write(root / subset / f"{index}.wav", np.full(1600, 0.5), RATE)
                table.writerow([f"{index}.wav", split, label, text])
    return root


@pytest.mark.usefixtures("words")
def test_a_recogniser_gets_held_out_clips_with_words(listener: Transcriber, tmp_path: Path) -> None:
    rows = [("train", "", "one"), ("valid", "", "two"), ("valid", "", "..."), ("valid", "", ""), ("test", "", "three")]
    train, held_out = clip_sets(listener, Dataset(folder(tmp_path / "a", {"talk": rows})))
    assert train == []
    assert [one.name for one in held_out] == ["talk/1.wav"]
    assert [one.name for one in clip_sets(listener, Dataset(tmp_path / "a"), held_out=["test"])[1]] == ["talk/4.wav"]
    with pytest.raises(DownstreamError, match="no clips of split valid have a text"):
        clip_sets(listener, Dataset(folder(tmp_path / "b", {"noise": [("valid", "rain", "")]})))
    with pytest.raises(AudioFileError, match="no clips of split 'valid'"):
        clip_sets(listener, Dataset(folder(tmp_path / "c", {"talk": [("train", "", "one")]})))


def test_an_encoder_gets_clips_with_a_label_by_subset(encoder: Embeds, tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="probes are fitted by scikit-learn")
    two = [(split, label, "") for split in ("train", "valid") for label in "aabb"]
    audio = folder(tmp_path / "a", {"x": [*two, ("train", "", "no label")], "y": two[:6]})
    train, held_out = clip_sets(encoder, Dataset(audio))
    assert len(train) == 8
    assert [one.labels for one in held_out[:3]] == [{"x": "a"}, {"x": "a"}, {"x": "b"}]
    with pytest.raises(DownstreamError, match="no label has two clips with and two without"):
        clip_sets(encoder, Dataset(folder(tmp_path / "b", {"x": [two[0], two[2], two[4], two[6]]})))


def test_other_models_have_no_such_cost(tmp_path: Path) -> None:
    codec = Codec(nn.Identity(), name="c")
    with pytest.raises(DownstreamError, match="c is a codec: it neither writes words nor embeds"):
        clip_sets(codec, Dataset(tmp_path))
    with pytest.raises(DownstreamError, match="c is a codec"):
        evaluate(codec, {}, [], [sound(0.5)])
    with pytest.raises(DownstreamError, match="no clips to measure on"):
        evaluate(codec, {}, [], [])
