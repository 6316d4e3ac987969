from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from evaluation import file_edits
from evaluation.dataset import LabelledSound
from evaluation.evaluators import acoustics
from evaluation.evaluators.acoustics import AcousticsConfig, goals_for, run, summary
from evaluation.figures import figure, requested
from evaluation.file_edits import FileEditor, is_met, random_like, requests_for, why_not
from evaluation.report import Report
from steer import ControlVector, SteeredModel
from steer.acoustics import Acoustics
from steer.recipe import Recipe

pytest.importorskip("torchcrepe", reason="extra eval")


@pytest.fixture(scope="module")
def opened(codec_folder: Path, sae_folder: Path) -> tuple[SteeredModel, dict[str, ControlVector]]:
    recipe = Recipe.build({"model": str(codec_folder), "saes": {"latent": str(sae_folder)}})
    return recipe.open(), recipe.control_vectors()


@pytest.fixture
def audio(sound: Callable[..., Path], tmp_path: Path) -> Path:
    """Two clips of half a second."""
    sound("audio/notes/0.flac", seconds=0.5)
    sound("audio/notes/1.wav", seconds=0.5, sample_rate=16_000)
    (tmp_path / "audio" / "notes" / "manifest.csv").write_text("path,split\n0.flac,test\n1.wav,test\n")
    return tmp_path / "audio"


def level_db(path: Path) -> float:
    samples, _ = soundfile.read(path)
    return float(10 * np.log10(np.mean(samples**2)))


# --- requests ---


def test_requests_of_a_clip_are_the_same_in_every_run() -> None:
    assert requests_for("notes/a.flac", "loudness", 2) == [3.0, -9.0]
    assert requests_for("notes/b.flac", "loudness", 2) != [3.0, -9.0]
    assert requests_for("notes/a.flac", "pitch", None) == [-12, -7, -4, -2, -1, 1, 2, 4, 7, 12]
    assert len(set(requests_for("notes/a.flac", "pitch", 99))) == 10


def test_all_three_are_asked_for_together_once() -> None:
    jobs = goals_for("notes/a.flac", ["loudness", "brightness", "pitch"], 2, 0)
    assert [attribute for attribute, _ in jobs] == ["loudness"] * 2 + ["brightness"] * 2 + ["pitch"] * 2 + ["together"]
    assert jobs[-1][1] == {"loudness": 3.0, "pitch": 2.0, "brightness": 20.0}
    assert all(attribute != "together" for attribute, _ in goals_for("esc10/a.ogg", ["loudness", "brightness"], 2, 0))


def voice(*notes: float) -> Acoustics:
    return Acoustics(-20.0, None, 1000.0, None, 1.0, torch.tensor(notes))


def test_what_cannot_be_measured_is_left_out() -> None:
    nothing = math.nan
    assert why_not(voice(*[50.0] * 10), {"pitch": -12.0}) == ""
    assert why_not(voice(*[42.0] * 10), {"pitch": -12.0}) == "out of CREPE's range"
    assert why_not(voice(*[90.0] * 10), {"pitch": 7.0}) == "out of CREPE's range"
    assert why_not(voice(50.0, 50.0, *[nothing] * 10), {"pitch": 1.0}) == "no pitch"
    assert why_not(voice(50.0, 50.0, *[nothing] * 10), {"loudness": 3.0}) == ""
    assert why_not(Acoustics(-120.0, None, 0.0, None, 0.0), {"brightness": 20.0}) == "no brightness"


def test_tolerances() -> None:
    assert is_met({"loudness": 3.0}, {"loudness": 3.5}) and not is_met({"loudness": 3.0}, {"loudness": 3.6})
    # 5 % of the wanted centroid
    assert is_met({"brightness": 20.0}, {"brightness": 25.9}) and not is_met({"brightness": 20.0}, {"brightness": 26.1})
    assert is_met({"pitch": 2.0}, {"pitch": 2.3}) and not is_met({"pitch": 2.0}, {"pitch": 2.3}, cents=25)
    assert not is_met({"pitch": 2.0}, {"pitch": None})
    assert not is_met({"pitch": 2.0, "loudness": 3.0}, {"pitch": 2.0, "loudness": 0.0})


# --- edits ---


def test_the_control_moves_the_activation_as_far() -> None:
    decoder, vector = torch.randn(40, 8), ControlVector(torch.randn(40))
    control = random_like(vector, decoder, seed=1)
    assert (control.vector @ decoder).norm() == pytest.approx((vector.vector @ decoder).norm().item(), rel=1e-4)
    assert not torch.allclose(control.vector, vector.vector)


def test_the_file_on_disk_has_the_change(opened: tuple[Any, Any], audio: Path, tmp_path: Path) -> None:
    steered, vectors = opened
    editor = FileEditor(steered, vectors, tmp_path)
    for name in ("0.flac", "1.wav"):
        source = audio / "notes" / name
        edit = editor.edit(source, {"loudness": -6.0})
        assert edit.path.suffix == source.suffix
        changed = level_db(edit.path) - level_db(source)
        assert changed == pytest.approx(-6.0, abs=0.5)
        assert edit.outcome.measured["loudness"] == pytest.approx(changed, abs=0.01)
        assert edit.trials >= 1


def test_the_round_trip_is_that_of_the_codec(opened: tuple[Any, Any], audio: Path, tmp_path: Path) -> None:
    steered, vectors = opened
    source, goals = audio / "notes" / "0.flac", {"loudness": 6.0}
    editor = FileEditor(steered, vectors, tmp_path)
    plain, _ = editor.round_trip(source, editor.edit(source, goals), goals)
    samples, rate = soundfile.read(source, dtype="float32")
    assert rate == steered.model.sample_rate
    with torch.no_grad():
        output = steered.model.run(torch.from_numpy(samples)[None, None]).numpy()
    assert plain.loudness_db == pytest.approx(10 * np.log10(np.mean(output[..., : len(samples)] ** 2)), abs=0.05)


def test_the_control_is_searched(
    opened: tuple[Any, Any], audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steered, vectors = opened
    editor = FileEditor(steered, vectors, tmp_path)
    random = editor.at_random("notes/0.flac")
    again = editor.at_random("notes/0.flac")
    assert all(torch.equal(random.vectors[name].vector, again.vectors[name].vector) for name in vectors)
    assert not torch.equal(random.vectors["loudness"].vector, random.vectors["brightness"].vector)
    edit = random.edit(audio / "notes" / "0.flac", {"loudness": 6.0})
    # a random direction does not do what its unit says: the search goes on from there
    assert edit.trials > 1
    assert edit.outcome.strengths["loudness"] != pytest.approx(6.0)


# --- the whole ---


def test_a_small_run(opened: tuple[Any, Any], audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steered, vectors = opened
    sources = {f"notes/{name}": audio / "notes" / name for name in ("0.flac", "1.wav")}
    written: list[float] = []
    measured_file = acoustics.measured_file

    def spy(path: Path, pitch: bool) -> Acoustics:
        written.append(level_db(path))
        return measured_file(path, False)

    monkeypatch.setattr(acoustics, "measured_file", spy)
    some = {name: vectors[name] for name in ("loudness", "brightness")}
    options = {"subsets": ("notes",), "requests": 1, "control_clips": 1}
    report = run(AcousticsConfig(audio=audio, subject=steered, vectors=some, **options))
    assert [(row["clip"], row["attribute"]) for row in report.clips] == [
        (name, attribute) for name in sources for attribute in ("loudness", "brightness")
    ]
    # of a clip: the input, each edit and, of the first, each control
    changes = [level - level_db(sources["notes/1.wav"]) for level in written[-2:]]
    assert [row["loudness"] for row in report.clips[-2:]] == pytest.approx(changes, abs=0.01)
    assert [row["control"] is not None for row in report.clips] == [True, True, False, False]
    assert report.clips[0]["met"] == (abs(report.clips[0]["loudness"] - report.clips[0]["goals"]["loudness"]) <= 0.5)
    assert [row["clips"] for row in report.rows] == ["notes", "all", "all, random directions"] * 2
    assert report.rows[0]["met"].count == 2
    assert report.rows[0]["control met"].count == 1
    assert "SAE(" in report.title and "2 test clips" in report.title
    assert report.about["clips"] == {"notes": 2}
    report.save(tmp_path / "acoustics.json")
    report.markdown()


def row(met: bool, drift: float, **others: Any) -> dict[str, Any]:
    base = {"subset": "notes", "speaker": "", "attribute": "loudness", "goals": {"loudness": 6.0}}
    base |= {"left out": "", "control": None}
    measured = {"loudness": 6.0, "brightness": drift, "pitch": None, "within 25 cents": met}
    held = {"met, others held": met and abs(drift) <= 5.0}
    return {**base, **measured, "met": met, **held, "met against round trip": True, **others}


def test_summary_counts_what_was_met() -> None:
    control = row(False, 50.0)
    clips = [
        row(True, 2.0, clip="a", control=control),
        row(True, -4.0, clip="a"),
        row(False, 6.0, clip="b"),
        row(True, 5.5, clip="c"),
        {**row(False, 0.0, clip="d"), "left out": "no pitch"},
    ]
    (notes, total, random) = summary(clips)
    assert (notes["clips"], total["clips"], notes["edits"]) == ("notes", "all", 4)
    assert str(notes["met"]).startswith("75 % [")
    assert notes["met"].count == 3
    assert str(notes["met against round trip"]).startswith("100 % [29.2, 100]")
    assert str(notes["control met"]).startswith("0 % [")
    assert notes["met, others held"].value == 0.5
    assert notes["brightness drift (%)"].value == 4.75
    assert notes["pitch drift (cents)"] is None and notes["within 25 cents"] is None
    assert notes["left out"] == "1 no pitch"
    assert (random["clips"], random["brightness drift (%)"].value) == ("all, random directions", 50.0)


def test_an_attribute_that_is_nowhere_measurable_is_a_row() -> None:
    (notes, total) = summary([{**row(False, 0.0, clip="d"), "left out": "no pitch"}])
    assert (notes["edits"], notes["met"], total["left out"]) == (0, None, "1 no pitch")


def test_the_figure_has_a_dot_for_each_edit() -> None:
    pytest.importorskip("matplotlib", reason="extra eval")
    clips = [row(True, 2.0, clip="a"), row(True, 2.0, clip="b", subset="digits"), row(True, 2.0, clip="c")]
    (axes,) = figure(requested(Report("title", [], clips))).axes
    assert [len(dots.get_offsets()) for dots in axes.collections] == [2, 1]
    assert axes.collections[0].get_offsets()[:, 1].tolist() == [6.0, 6.0]


def test_an_edit_that_cannot_be_made_is_not_met(opened: tuple[Any, Any], tmp_path: Path) -> None:
    steered, vectors = opened
    rng = np.random.default_rng(0)
    noise = tmp_path / "noise.wav"
    soundfile.write(noise, 0.1 * rng.standard_normal(12_000), 24_000)
    file = LabelledSound(noise, "notes/noise.wav", {"subset": "notes"})
    before = file_edits.measured_file(noise, False)
    made = acoustics.edit_row(FileEditor(steered, vectors, tmp_path), file, before, {"pitch": 2.0})
    assert not made["met"] and not made["met against round trip"]
    assert "no pitch" in made["failed"]
