from __future__ import annotations

from pathlib import Path

import pytest
import torch

from evaluation.goals import as_rows, reach, shifts, stretch
from hooks import AudioFileError, Clip, read_clip
from hooks.model import Codec
from steer import ControlVector, SteeredModel

Vectors = dict[str, ControlVector]


@pytest.fixture(scope="module")
def speech(recordings: Path) -> Clip:
    clip = read_clip(recordings / "ljspeech" / "LJ001-0015.flac").resampled(24_000)
    return Clip(clip.waveform[:, : 2 * 24_000], 24_000, "speech")


def test_a_reached_goal_is_what_the_waveforms_say(steered: SteeredModel, vectors: Vectors, speech: Clip) -> None:
    result = reach(steered, vectors, speech, {"loudness": 6.0}, pitch=False)
    assert result.calibration.met
    before, after = (clip.waveform.square().mean().log10() * 10 for clip in (result.before, result.after))
    assert (after - before).item() == pytest.approx(6.0, abs=1.0)  # the tolerance of the goal
    assert not list(steered.module.encoder._forward_hooks)


def test_without_residual_the_reference_is_the_plain_round_trip(
    steered: SteeredModel, vectors: Vectors, speech: Clip
) -> None:
    result = reach(steered, vectors, speech, {"loudness": -3.0}, pitch=False)
    codec = steered.model
    assert isinstance(codec, Codec)
    assert torch.equal(result.before.waveform, codec.run(as_rows(codec, speech))[0])


def test_with_residual_only_the_difference_is_added(steered: SteeredModel, vectors: Vectors, speech: Clip) -> None:
    kept = reach(steered, vectors, speech, {"brightness": 15.0}, keep=True, pitch=False)
    assert torch.equal(kept.before.waveform, speech.waveform)
    codec = steered.model
    assert isinstance(codec, Codec)
    rows = as_rows(codec, speech)
    with steered.edit(*shifts(vectors, kept.calibration.strengths)):
        edited = codec.run(rows)
    expected = speech.waveform + (edited - codec.run(rows))[0]
    assert torch.equal(kept.after.waveform, expected)


def test_spans_limit_the_edit_and_its_measurement(steered: SteeredModel, vectors: Vectors, speech: Clip) -> None:
    result = reach(steered, vectors, speech, {"loudness": 5.0}, during=(0.8, 1.4), pitch=False)
    inside = slice(int(0.8 * 24_000), int(1.4 * 24_000))
    before, after = (clip.waveform[:, inside].square().mean().log10() * 10 for clip in (result.before, result.after))
    assert (after - before).item() == pytest.approx(result.calibration.reached["loudness"], abs=1e-3)
    # the decoder looks about 0.4 s to either side; before that nothing has changed
    assert torch.equal(result.before.waveform[:, :4800], result.after.waveform[:, :4800])


def test_spans_behind_the_end_are_refused(steered: SteeredModel, vectors: Vectors, speech: Clip) -> None:
    with pytest.raises(AudioFileError, match="over before"):
        reach(steered, vectors, speech, {"loudness": 5.0}, during=(5.0, 6.0))


def test_channels_of_a_mono_codec_are_rows(steered: SteeredModel) -> None:
    codec = steered.model
    assert isinstance(codec, Codec)
    stereo = Clip(0.1 * torch.randn(2, 24_000), 24_000)
    assert as_rows(codec, stereo).shape == (2, 1, 24_000)


def test_stretch_puts_spans_together() -> None:
    wave = torch.arange(10.0)[None]
    assert stretch(wave, 1, [(1.0, 3.0), (8.0, 20.0)]).tolist() == [[1.0, 2.0, 8.0, 9.0]]
    assert stretch(wave, 1, None) is wave


def test_a_strength_of_zero_is_no_edit(vectors: Vectors) -> None:
    assert [edit.strength for edit in shifts(vectors, {"loudness": 0.0, "pitch": 2.0})] == [2.0]
