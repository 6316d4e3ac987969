"""`edit_sound`: every kind of source, in its own rate, channels and format."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from hooks import AudioFileError, Clip, read_clip
from steer import Ablate, Clamp, EditedSound, RecipeError, SteeredModel, edit_sound, load_vectors
from steer.editing.editor import Editor
from steer.recipe import Recipe
from tests.hard_sounds import case
from tests.tiny_codec import tones

Write = Callable[..., Path]


@pytest.fixture
def edit(codec_folder: Path, sae_folder: Path) -> Callable[..., EditedSound]:
    """`edit_sound` with the tiny codec; loudness +3 dB where nothing is asked for."""

    def run(source: Any, **options: Any) -> EditedSound:
        if not {"goals", "edits"} & options.keys():
            options["edits"] = [{"clamp": {0: 1.0}}]
        return edit_sound(source, str(codec_folder), **{"saes": {"latent": str(sae_folder)}, **options})

    return run


Edit = Callable[..., EditedSound]


def level_db(x: Any) -> float:
    return float(10 * np.log10(np.mean(np.asarray(x) ** 2)))


@pytest.mark.parametrize(
    ("name", "rate", "channels", "subtype"),
    [
        ("a.wav", 44_100, 2, "PCM_16"),
        ("a.flac", 48_000, 1, "PCM_24"),
        ("a.aiff", 24_000, 3, "PCM_24"),
        ("a.ogg", 22_050, 1, "VORBIS"),
        ("a.wav", 11_025, 1, "FLOAT"),
    ],
)
def test_paths_bytes_and_open_files(
    edit: Edit, sound: Write, tmp_path: Path, name: str, rate: int, channels: int, subtype: str
) -> None:
    path = sound(name, 0.6, rate, channels, subtype)
    before = path.read_bytes()
    with path.open("rb") as file:
        sources = [path, str(path), before, io.BytesIO(before), file]
        edited = [edit(source) for source in sources]
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == [name]
    for one in edited:
        info = soundfile.info(io.BytesIO(one.data))
        assert (info.samplerate, info.channels, info.subtype) == (rate, channels, subtype)
        assert info.format == soundfile.info(path).format
        assert one.sample_rate == rate and one.samples.dtype == torch.float64
        assert one.samples.shape == (channels, soundfile.info(path).frames)
        assert torch.equal(one.samples, edited[0].samples)
        assert one.samples.T.numpy() == pytest.approx(soundfile.read(io.BytesIO(one.data), always_2d=True)[0])
    assert edited[0].outcome.source == str(path)
    assert level_db(edited[0].samples) != pytest.approx(level_db(soundfile.read(path)[0]), abs=0.1)


@pytest.mark.parametrize("rate", [24_000, 44_100])
def test_samples_and_clips(edit: Edit, rate: int) -> None:
    samples = tones(0.6, rate, 2).T
    double = edit((samples, rate))
    assert double.samples.shape == samples.shape and double.sample_rate == rate
    assert soundfile.info(io.BytesIO(double.data)).subtype == "DOUBLE"
    for source in ((torch.from_numpy(samples), rate), Clip(torch.from_numpy(samples), rate)):
        assert torch.allclose(edit(source).samples, double.samples, atol=1e-6)
    mono = edit((samples[0].astype(np.float32), rate))
    assert mono.samples.shape == (1, samples.shape[1])
    assert soundfile.info(io.BytesIO(mono.data)).subtype == "FLOAT"


def test_integers_are_the_same_sound(edit: Edit) -> None:
    samples = (tones(0.6, 24_000, 2).T * 32_767).round()
    floats = edit((samples / 32_768, 24_000))
    assert torch.allclose(edit((samples.astype(np.int16), 24_000)).samples, floats.samples, atol=1e-6)


def test_bytes_whose_header_is_wrong_are_whole(edit: Edit, tmp_path: Path) -> None:
    for name, frames in (("chained-ogg/chained.ogg", 192_000), ("wav-size-0/cut-off.wav", 24_000)):
        edited = edit(case(name, tmp_path).read_bytes())
        assert edited.samples.shape == (1, frames) and edited.outcome.notes


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
def test_what_ffmpeg_decodes_becomes_a_wav(edit: Edit, tmp_path: Path) -> None:
    path = case("wav-size-0/cut-off.wav", tmp_path)
    subprocess.run(["ffmpeg", "-v", "error", "-i", str(path), str(tmp_path / "a.m4a")], check=True)
    for source in (tmp_path / "a.m4a", (tmp_path / "a.m4a").read_bytes()):
        edited = edit(source)
        assert (edited.ending, soundfile.info(io.BytesIO(edited.data)).format) == (".wav", "WAV")
        assert 1.0 <= edited.samples.shape[1] / edited.sample_rate < 1.06


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ((np.zeros((1000, 2)), 24_000), r"not \[1000, 2\], .* turn it with .T"),
        ((np.zeros((2, 3, 4)), 24_000), r"not \[2, 3, 4\]$"),
        ((np.zeros(1000, np.int64), 24_000), "or integers of 8, 16 or 32 bits, not torch.int64"),
        ((np.full(1000, np.nan), 24_000), "not finite"),
        (b"no sound", "not a sound file"),
        (io.BytesIO(b""), "not a sound file"),
        ("none.wav", "none.wav: no such file"),
    ],
)
def test_what_is_no_sound_is_refused(edit: Edit, source: Any, says: str) -> None:
    with pytest.raises(AudioFileError, match=says):
        edit(source)


def test_a_goal_is_met_against_the_sound_itself(edit: Edit) -> None:
    samples, stages = tones(1.0, 44_100, 2).T, []
    edited = edit((samples, 44_100), goals={"loudness": "+3dB"}, report=lambda stage, share: stages.append(stage))
    assert edited.met and level_db(edited.samples) - level_db(samples) == pytest.approx(3.0, abs=0.5)
    assert edited.outcome.requested == {"loudness": 3.0}
    assert {"stoi", "above_band_db", "outside_unchanged", "unmoved"} == edited.outcome.kept.keys()
    assert edited.outcome.round_trip and len(edited.outcome.channels) == 2
    assert "measuring" in stages


def test_during_leaves_the_rest_as_it_was(edit: Edit) -> None:
    samples = tones(2.0, 44_100).T
    edited = edit((samples, 44_100), goals={"loudness": 4}, during=(0.5, 1.0))
    outside = np.r_[: 44_100 // 2, 44_100:88_200]
    assert np.array_equal(edited.samples.numpy()[:, outside], samples[:, outside])
    assert edited.outcome.kept["outside_unchanged"]


def test_the_same_as_the_editor(edit: Edit, sound: Write, tmp_path: Path, codec_folder: Path, sae_folder: Path) -> None:
    source = sound("a.flac", 0.8, 44_100, 2)
    values = {"goals": {"loudness": -2}, "edits": [{"ablate": [3, 17]}], "during": [[0.1, 0.7]], "residual": "keep"}
    recipe = Recipe.build({"model": str(codec_folder), "saes": {"latent": str(sae_folder)}, **values})
    Editor(recipe).edit_file(source, tmp_path / "editor.flac")
    assert edit(source, **values).save(tmp_path / "sound.flac") == tmp_path / "sound.flac"
    assert (tmp_path / "editor.flac").read_bytes() == (tmp_path / "sound.flac").read_bytes()


def test_an_open_model_and_edits_as_objects(edit: Edit, codec_folder: Path, sae_folder: Path) -> None:
    samples = tones(0.5).T
    recipe = Recipe.build({"model": str(codec_folder), "saes": {"latent": str(sae_folder)}})
    model = recipe.open()
    assert isinstance(model, SteeredModel)
    expected = edit((samples, 24_000), edits=[{"clamp": {0: 1.0}}, {"ablate": [3]}])
    for edits in ([Clamp([0], 1.0), Ablate([3])], [{"clamp": {0: 1.0}}, Ablate([3])]):
        assert torch.equal(edit_sound((samples, 24_000), model, edits=edits).samples, expected.samples)
    with pytest.raises(RecipeError, match="pass vectors"):
        edit_sound((samples, 24_000), model, goals={"loudness": 3})
    vectors = load_vectors(sae_folder / "vectors.safetensors")
    edited = edit_sound((samples, 24_000), model, goals={"loudness": 3}, vectors=vectors)
    assert torch.equal(edited.samples, edit((samples, 24_000), goals={"loudness": 3}).samples)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"goals": {"loudnes": 3}}, "did you mean 'loudness'"),
        ({"goals": {"loudness": "loud"}}, "not an amount"),
        ({"edits": [{"ablate": [3], "clamp": {1: 2}}]}, "exactly one of"),
        ({"residual": "maybe", "goals": {}}, "residual"),
        ({"during": (2, 1), "goals": {}}, "empty"),
    ],
)
def test_what_makes_no_sense_is_refused(edit: Edit, options: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        edit((tones(0.2).T, 24_000), **options)


def test_limits_can_be_left_out(edit: Edit, sound: Write) -> None:
    path = sound("a.wav", 0.5)
    limited, clipped = (edit(path, edits=[{"clamp": {0: 2.0}}], limit=limit).outcome for limit in (True, False))
    assert limited.limited_db > 1 and limited.clipped == 0
    assert clipped.limited_db == 0 and clipped.clipped > 0


# --- saving ---


def test_saved_as_it_is_or_in_another_format(edit: Edit, sound: Write, tmp_path: Path) -> None:
    edited = edit(sound("a.wav", 0.4, 44_100, 2, "PCM_24"))
    edited.save(tmp_path / "b.wav")
    assert (tmp_path / "b.wav").read_bytes() == edited.data
    edited.save(str(tmp_path / "b.flac"))
    assert (soundfile.info(tmp_path / "b.flac").format, soundfile.info(tmp_path / "b.flac").subtype) == (
        "FLAC",
        "PCM_24",
    )
    assert torch.equal(read_clip(tmp_path / "b.flac").waveform, edited.samples.float())
    with pytest.raises(AudioFileError, match="exists already"):
        edited.save(tmp_path / "b.wav")
    edited.save(tmp_path / "b.wav", force=True)
    with pytest.raises(AudioFileError, match="unknown kind"):
        edited.save(tmp_path / "b.xyz")
    with pytest.raises(AudioFileError, match="no such folder"):
        edited.save(tmp_path / "none" / "b.wav")
