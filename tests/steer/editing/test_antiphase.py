"""Channels that cancel each other in a mix: what is measured is what was edited."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hooks import open_model, read_clip
from steer.acoustics import centroid_hz, measure
from steer.editing.editor import Editor, Outcome
from steer.recipe import Recipe
from tests.hard_sounds import RATE, case


@pytest.fixture(scope="module")
def edited(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path, Outcome]]:
    """{name: (before, after, outcome)} of the case, 30 % brighter."""
    folder = tmp_path_factory.mktemp("antiphase")
    editor = Editor(Recipe.build({"goals": {"brightness": "+30%"}}))
    found = {}
    for name in ("both", "anti"):
        before, after = case(f"antiphase/{name}.wav", folder), folder / f"out-{name}.wav"
        found[name] = (before, after, editor.edit_file(before, after))
    return found


def test_the_change_is_that_of_each_channel(edited: dict[str, tuple[Path, Path, Outcome]]) -> None:
    for before, after, outcome in edited.values():
        brightness = outcome.measured["brightness"]
        assert outcome.met and brightness is not None
        for channel in (0, 1):
            hertz = [centroid_hz(read_clip(path).waveform[[channel]], RATE) for path in (before, after)]
            assert 100 * (hertz[1] / hertz[0] - 1) == pytest.approx(brightness, abs=1.0)
    stois = [outcome.kept["stoi"] for _, _, outcome in edited.values()]
    assert stois[0] is None or (stois[0] > 0.9 and stois[1] == pytest.approx(stois[0], abs=0.02))


def test_librosa_finds_the_same_change(edited: dict[str, tuple[Path, Path, Outcome]]) -> None:
    librosa = pytest.importorskip("librosa")
    for before, after, outcome in edited.values():
        rises = []
        for channel in (0, 1):
            centroids = []
            for path in (before, after):
                samples_N = soundfile.read(path)[0][:, channel]
                centroid_T = librosa.feature.spectral_centroid(y=samples_N, sr=RATE, n_fft=960, hop_length=240)[0]
                level_T = librosa.feature.rms(y=samples_N, frame_length=960, hop_length=240)[0]
                centroids.append(centroid_T[level_T > 0.01 * level_T.max()].mean())
            rises.append(100 * (centroids[1] / centroids[0] - 1))
        # windows lie otherwise
        assert np.mean(rises) == pytest.approx(outcome.measured["brightness"], abs=3.0)


@settings(deadline=None, max_examples=25)
@given(signs=st.lists(st.sampled_from([-1.0, 1.0]), min_size=2, max_size=8), seed=st.integers(0, 99))
def test_no_measure_depends_on_the_polarity_of_a_channel(signs: list[float], seed: int) -> None:
    x_N = 0.1 * torch.randn(8_000, generator=torch.Generator().manual_seed(seed)).cumsum(0).sin()
    x_CN = torch.stack([sign * x_N for sign in signs])
    one, several = (measure(x, 16_000, pitch=False) for x in (x_N[None], x_CN))
    assert several.loudness_db == pytest.approx(one.loudness_db, abs=1e-4)
    assert several.centroid_hz == pytest.approx(one.centroid_hz, rel=1e-4)


def test_pitch_is_read_and_words_are_recognised_as_of_one_channel(tmp_path: Path) -> None:
    clips = [read_clip(case(f"antiphase/{name}.wav", tmp_path)) for name in ("both", "anti")]
    pitches = [measure(clip.waveform, RATE).pitch_midi for clip in clips]
    assert pitches[0] == pitches[1]
    model = open_model("starter:asr")
    with pytest.warns(UserWarning, match="anti.wav: its channels cancel each other"):
        texts = [model.transcribe(clip, temperature=0.0) for clip in clips]
    assert texts[0] == texts[1]
