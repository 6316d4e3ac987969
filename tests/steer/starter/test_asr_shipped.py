"""The starter recogniser that ships: it opens everywhere, its SAEs fit, and it writes what people say."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from hooks import Transcriber, open_model
from steer import SAE, Ablate, Shift, SteeredModel, starter
from steer.errors import RecipeError
from steer.recipe import Recipe

whisper = pytest.importorskip("whisper", reason="the starter recogniser is an openai-whisper model (extra whisper)")
normalizers = pytest.importorskip("whisper.normalizers", reason="extra whisper")

ASR = "starter:asr"
GREEDY: dict[str, Any] = {"temperature": 0.0, "condition_on_previous_text": False}
WORST_WER = 0.25
"""Of single test clips; the card has the numbers."""


@pytest.fixture(scope="module")
def model() -> Transcriber:
    opened = open_model(ASR)
    assert isinstance(opened, Transcriber)
    return opened


@pytest.fixture(scope="module")
def clips(recordings: Path) -> list[tuple[Path, str]]:
    """Test clips with their texts, every other one a digit by a speaker whom the training has not heard."""
    found = []
    for subset in ("digits", "keywords"):
        with (recordings / subset / "manifest.csv").open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
        found.append([(recordings / subset / row["path"], row["text"]) for row in rows[:: len(rows) // 12][:12]])
    return [clip for pair in zip(*found, strict=True) for clip in pair]


def test_an_sae_for_every_encoder_layer(model: Transcriber) -> None:
    layers = [name for name in model.sites if name.removeprefix("encoder.").isdecimal()]
    assert starter.saes(ASR) == [f"{ASR}/{name}" for name in layers]
    for name in layers:
        info = SAE.load(f"{ASR}/{name}").info
        assert (info.model, info.site, info.frame_rate) == (ASR, name, 50.0)
        assert info.data and info.license
        assert info.metrics["explained_variance"] > 0.7
    assert list(Recipe.build({"model": ASR}).saes) == layers


@pytest.mark.parametrize("folder", sorted(p.parent for p in (starter.FOLDER / "asr").rglob("README.md")), ids=str)
def test_cards(folder: Path) -> None:
    for section in ("Data", "Licence", "Command", "Quality"):
        assert f"## {section}" in (folder / "README.md").read_text()


def test_every_folder_has_a_card() -> None:
    folders = {path.parent for path in (starter.FOLDER / "asr").rglob("*.safetensors")}
    assert folders and all((folder / "README.md").is_file() for folder in folders)


def test_no_edit_is_the_model_itself_to_the_bit(model: Transcriber) -> None:
    audio_BCN = 0.1 * torch.randn(1, 1, 16_000)
    plain = model.run(audio_BCN)
    steered = Recipe.build({"model": ASR}).open()
    assert torch.equal(steered.run(audio_BCN), plain)
    for site, sae in steered.saes.items():
        with steered.edit({site: Ablate(range(sae.d_sae))}):
            assert not torch.equal(steered.run(audio_BCN), plain)


def test_it_writes_what_unseen_speakers_say(model: Transcriber, clips: list[tuple[Path, str]]) -> None:
    jiwer = pytest.importorskip("jiwer", reason="word error rates (extra whisper)")
    normal = normalizers.EnglishTextNormalizer()
    said = [normal(text) for _, text in clips]
    written = [normal(model.transcribe(path, **GREEDY)) for path, _ in clips]
    assert jiwer.wer(said, written) < WORST_WER


def test_it_is_the_same_model_in_both_libraries(
    model: Transcriber, clips: list[tuple[Path, str]], tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers", reason="extra whisper")
    from hooks.families.whisper.export import CHECKPOINT, export

    export(model, tmp_path)
    package = whisper.load_model(str(tmp_path / CHECKPOINT), device="cpu")
    pipeline = transformers.pipeline("automatic-speech-recognition", model=str(tmp_path))
    hf = open_model(tmp_path)
    assert isinstance(hf, Transcriber)
    same = 0
    for path, _ in clips[:3]:
        samples_N = model.prepare(path)[0, 0]
        # both fill the window up with silence: `transcribe` of the package pads the spectrogram instead
        padded = whisper.pad_or_trim(samples_N)
        expected = whisper.transcribe(package, padded.numpy(), without_timestamps=True, fp16=False, **GREEDY)
        text = expected["text"].strip()
        assert hf.transcribe(padded) == text
        assert pipeline(samples_N.numpy(), generate_kwargs={"num_beams": 1})["text"].strip() == text
        same += bool(text)
    assert same >= 2
    # the starter's SAEs steer it there as well
    sae = SAE.load(f"{ASR}/encoder.1")
    edit = Shift(torch.randn(sae.d_sae), 3.0)
    words = []
    for one in (model, hf):
        steered = SteeredModel(one, sae)
        with steered.edit(edit):
            words.append(steered.run(0.1 * torch.ones(1, 1, 16_000)))
    # float32, two ways of computing a spectrogram and attention
    torch.testing.assert_close(words[0], words[1], atol=1e-3, rtol=1e-3)


def test_the_recipe_that_ships_takes_words_off_sounds_without_speech(
    model: Transcriber, clips: list[tuple[Path, str]], recordings: Path
) -> None:
    assert f"{ASR}/false-alarms" in starter.recipes()
    with pytest.raises(RecipeError, match="there are starter:asr/false-alarms"):
        Recipe.load(f"{ASR}/other")
    recipe = Recipe.load(f"{ASR}/false-alarms")
    assert (recipe.model, recipe.saes) == (ASR, Recipe.build({"model": ASR}).saes)
    steered = recipe.open()
    with (recordings / "esc10" / "manifest.csv").open(newline="") as file:
        sounds = [recordings / "esc10" / row["path"] for row in csv.DictReader(file) if row["split"] == "test"]
    silent, spoken = sounds[:: len(sounds) // 8][:8], [path for path, _ in clips[:8]]

    def heard(paths: list[Path]) -> list[str]:
        return [normalizers.EnglishTextNormalizer()(steered.model.transcribe(path, **GREEDY)) for path in paths]

    plain = heard(silent), heard(spoken)
    with steered.edit(recipe.edits_for(), padding=recipe.padding):
        edited = heard(silent), heard(spoken)
    assert sum(map(bool, plain[0])) >= 7
    assert sum(map(bool, edited[0])) <= 3
    assert sum(map(str.__ne__, edited[1], plain[1])) <= 1  # 3 of 89 words by the card
