from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from apps.page.feature_run import about, inside, table, top_clips
from evaluation.atlas import Atlas, Concept
from hooks import AudioFileError
from steer.errors import EditError

NAN = float("nan")
RATE = 8_000


@pytest.fixture
def atlas() -> Atlas:
    """Of 12 features: 0 tells dogs, 1 theo, 3 nothing, 4 dogs by a hair; all others are silent."""
    size = 12
    density, mean, highest = torch.zeros(size), torch.zeros(size), torch.zeros(size)
    density[[0, 1, 3, 4]] = torch.tensor([0.5, 0.25, 1.0, 0.125])
    mean[[0, 1, 3, 4]] = torch.tensor([1.0, 0.5, 2.0, 0.1])
    highest[[0, 1, 3, 4]] = torch.tensor([3.0, 2.0, 9.0, 0.5])
    peak_value, peak_s = torch.zeros(size, 2), torch.full((size, 2), NAN)
    peak_clip = torch.full((size, 2), -1, dtype=torch.int32)
    for feature, peaks in {
        0: [(2, 3.0, 5.0), (0, 1.5, 1.0)],
        1: [(1, 0.5, 2.0)],
        3: [(0, 0.0, 9.0)],
        4: [(1, 1.0, 0.5)],
    }.items():
        for place, (clip, at_s, value) in enumerate(peaks):
            peak_clip[feature, place], peak_s[feature, place], peak_value[feature, place] = clip, at_s, value
    auroc = torch.full((3, size), 0.5)
    auroc[0, [0, 4]] = torch.tensor([1.0, 0.72])
    auroc[1] = NAN
    auroc[2, [0, 1]] = torch.tensor([0.95, 1.0])
    return Atlas(
        model="tiny",
        sae="some/sae",
        site="latent",
        frames=100,
        clips=["dogs/a.wav", "people/b.wav", "dogs/c.wav"],
        concepts=[
            Concept("label", "dog", 5, 20, 0.7),
            Concept("label", "cat", 1, 24, None),
            Concept("speaker", "theo", 30, 9, 0.8),
        ],
        about={},
        density=density,
        mean=mean,
        max=highest,
        peak_value=peak_value,
        peak_clip=peak_clip,
        peak_s=peak_s,
        auroc=auroc,
    )


def features(rows: list[dict[str, object]]) -> list[object]:
    return [row["feature"] for row in rows]


# --- the table ---


def test_all_features_that_fire_in_each_order(atlas: Atlas) -> None:
    assert features(table(atlas)) == [0, 1, 4, 3]  # above chance by 0.3, 0.2, 0.02, -0.2
    assert features(table(atlas, order="density")) == [3, 0, 1, 4]
    assert features(table(atlas, order="max")) == [3, 0, 1, 4]
    assert features(table(atlas, top=2)) == [0, 1]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("1", [1]),  # and neither 10 nor 11
        ("2", [2]),
        ("99", []),
        ("9" * 5000, []),
        (" DOG ", [0, 3]),  # 3 tells no dogs, but peaks in dogs/a.wav
        ("label:dog", [0]),  # by 4 it may be luck
        ("theo", [1, 0]),
        ("b.wav", [1, 4]),
        ("cat", []),
        ("nobody", []),
    ],
)
def test_searching(atlas: Atlas, query: str, expected: list[int]) -> None:
    assert features(table(atlas, query)) == expected


def test_a_row(atlas: Atlas) -> None:
    assert table(atlas, "0") == [
        {
            "feature": 0,
            "frames (%)": 50.0,
            "mean": 1.0,
            "max": 3.0,
            "tells: AUROC (chance)": "label:dog 1.00 (0.70)\nspeaker:theo 0.95 (0.80)",
            "highest in": "dogs/c.wav at 3.00 s",
        }
    ]
    assert table(atlas, "theo")[1]["tells: AUROC (chance)"].startswith("speaker:theo")
    # what is at chance is no label
    assert table(atlas, "3")[0]["tells: AUROC (chance)"] == ""
    silent = table(atlas, "2")[0]
    assert (silent["tells: AUROC (chance)"], silent["highest in"]) == ("", "silent")


def test_an_atlas_without_labels(atlas: Atlas) -> None:
    bare = replace(atlas, concepts=[], auroc=torch.zeros(0, atlas.d_sae))
    assert features(table(bare)) == [3, 0, 1, 4]
    assert features(table(bare, "dogs")) == [3, 0]
    assert "knows no labels" in about(bare, 0)


# --- in words ---


def test_one_feature_in_words(atlas: Atlas) -> None:
    assert about(atlas, 0) == (
        "Feature 0 fires in 50 % of the frames of 3 clips, and most in dogs/c.wav at 3.00 s (5). "
        "Its 2 highest peaks are in dogs (2). "
        "It is higher with label:dog than with another label in 100 % of pairs of clips "
        "(AUROC 1.00; with shuffled labels the best of all 12 features has 0.70). Only 5 clips have that label. "
        "It also tells speaker:theo (0.95; 0.80)."
    )
    assert "Only" not in about(atlas, 1)
    assert "never fires in the 3 clips" in about(atlas, 2)
    with pytest.raises(EditError, match="no feature 12"):
        about(atlas, 12)


def test_what_may_be_luck_is_called_so(atlas: Atlas) -> None:
    assert "tells no label better than chance; the nearest is label:dog (AUROC 0.50" in about(atlas, 3)
    assert "tells no label clearly; the nearest, label:dog, may be luck (AUROC 0.72" in about(atlas, 4)


# --- clips ---


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    """a.wav and c.wav of 4 s, whose samples say where they are."""
    root = tmp_path / "audio"
    (root / "dogs").mkdir(parents=True)
    for name in ("a", "c"):
        soundfile.write(root / "dogs" / f"{name}.wav", np.linspace(0, 0.5, 4 * RATE), RATE, subtype="FLOAT")
    return root


def test_excerpts_around_the_peaks(atlas: Atlas, audio: Path, tmp_path: Path) -> None:
    first, second = top_clips(atlas, 0, audio, tmp_path)
    assert (first.clip, first.at_s, first.value, first.start_s) == ("dogs/c.wav", 3.0, 5.0, 2.0)
    assert second.start_s == 0.5
    for one in (first, second):
        assert one.path is not None
        samples, rate = soundfile.read(one.path)
        assert (len(samples), rate) == (2 * RATE, RATE)
        # the middle is as it was, to 16 bits; where it was cut it comes and goes
        assert samples[RATE] == pytest.approx(0.5 * (one.start_s + 1) / 4, abs=1e-3)
        assert samples[0] == 0
    assert samples[-1] == 0
    samples, _ = soundfile.read(first.path)
    assert samples[-1] == pytest.approx(0.5, abs=1e-3)  # this one ends with the clip itself
    assert {first.path, second.path} == set(tmp_path.glob("*.wav"))


def test_clips_that_are_not_there(atlas: Atlas, audio: Path, tmp_path: Path) -> None:
    (one,) = top_clips(atlas, 1, audio, tmp_path)
    assert (one.path, one.missing) == (None, "not among the recordings here")
    (one,) = top_clips(atlas, 1, None, tmp_path)
    assert (one.path, one.missing) == (None, "the recordings are not here")
    assert top_clips(atlas, 2, audio, tmp_path) == []
    (audio / "dogs" / "c.wav").write_text("no sound")
    assert [one.path is None for one in top_clips(atlas, 0, audio, tmp_path)] == [True, False]
    assert not list(audio.glob("*.partial"))


def test_nothing_outside_the_folder_is_read(atlas: Atlas, audio: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.wav"
    secret.write_bytes((audio / "dogs" / "a.wav").read_bytes())
    os.symlink(secret, audio / "link.wav")
    os.symlink(tmp_path, audio / "folder")
    os.symlink("round.wav", audio / "round.wav")
    beside = tmp_path / "audio2"
    beside.mkdir()
    (beside / "b.wav").write_bytes(secret.read_bytes())
    (tmp_path / "out").mkdir()
    for name in (
        "../secret.wav", "dogs/../../secret.wav", str(secret), "link.wav", "folder/secret.wav", "round.wav",
        "../audio2/b.wav", "a\0.wav", "", ".", "dogs", "x" * 5000,
    ):  # fmt: skip
        with pytest.raises(AudioFileError):
            inside(audio, name)
        foreign = replace(atlas, clips=[name] * 3)
        assert all(one.path is None for one in top_clips(foreign, 0, audio, tmp_path / "out"))
    assert not list((tmp_path / "out").iterdir())
    # the folder itself may be a link, and so may what stays inside
    os.symlink(audio, tmp_path / "alias")
    os.symlink("a.wav", audio / "dogs" / "same.wav")
    assert inside(tmp_path / "alias", "dogs/same.wav") == audio.resolve() / "dogs" / "a.wav"
