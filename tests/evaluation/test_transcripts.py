from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

from evaluation.dataset import Dataset, LabelledSound
from evaluation.intervals import all_or_none
from evaluation.report import Interval, Share
from evaluation.transcripts import (
    Clips,
    FalseAlarmError,
    Heard,
    Score,
    alarm_rate,
    clips_of,
    defaults,
    drop,
    listen,
    over_clips,
    ratio,
    rise_in_points,
    word_errors,
    words_of,
)
from hooks import AudioModel, Transcriber

pytest.importorskip("whisper", reason="extra whisper")
pytest.importorskip("jiwer", reason="extra whisper")


def sound(text: str = "") -> LabelledSound:
    return LabelledSound(torch.full((16_000,), 0.5), "x", {"text": text})


def heard(text: str, no_speech_prob: float | None = None, seconds: float = 6.0) -> Heard:
    return Heard(text, words_of(text), no_speech_prob, seconds)


def test_words_are_those_of_whispers_normaliser() -> None:
    assert words_of("Um, Mr. Smith's colour!") == ("mister", "smith", "is", "color")
    assert words_of("three, five") == ("35",)
    assert words_of(" [Music] ... (applause) ") == ()


def test_word_errors_count_all_three_kinds() -> None:
    assert word_errors(["a", "b", "c", "d"], ["a", "x", "d", "e"]) == 3
    assert word_errors(["a", "b"], ["a", "b"]) == 0
    assert word_errors(["a", "b"], []) == 2
    assert word_errors([], ["a"]) == 1


def test_score_of_made_up_transcripts() -> None:
    clips = Clips([sound(), sound(), sound(), sound()], [sound("good morning"), sound("one two oh")], "test")
    score = Score.of(
        clips,
        [
            heard("", 0.9),
            heard("Thank you.", 0.2),
            heard("[Music]", 0.5),  # no words
            heard("you", 0.49),
            heard("good morning, all"),
            heard("120"),  # Whisper's way to write it
        ],
    )
    assert score.alarms_N.tolist() == [0, 1, 0, 1]
    assert score.words_N.tolist() == [0, 2, 0, 1]
    assert float(ratio(score.words_N, score.minutes_N)) == pytest.approx(3 / 0.4)
    assert score.errors_M.tolist() == [1, 0]
    assert score.lengths_M.tolist() == [2, 1]
    assert score.taken_N is not None and score.taken_N.tolist() == [0, 1, 0, 1]
    untold = Score.of(clips, [heard("")] * 6)
    assert untold.taken_N is None
    assert alarm_rate([heard("you"), heard(""), heard(""), heard("")]) == 0.25


def test_several_draws_stay_apart() -> None:
    def score(alarms: list[float], taken: list[float] | None) -> Score:
        zeros = np.zeros(2)
        return Score(np.array(alarms), zeros, zeros, zeros, zeros, None if taken is None else np.array(taken))

    both = Score.drawn([score([1, 0], [1, 1]), score([1, 1], [0, 1])])
    assert both.alarms_N.tolist() == [[1, 0], [1, 1]]
    assert both.taken_N is not None and both.taken_N.tolist() == [[1, 1], [0, 1]]
    assert Score.drawn([score([1, 0], [1, 1]), score([1, 1], None)]).taken_N is None
    assert both.only(np.array([True, False])).errors_M.shape == (2, 1)
    mean = over_clips(ratio, both.alarms_N, np.ones(2), kind=Share)
    assert (mean.value, mean.count) == (0.75, 2)


def test_draws_vary_too() -> None:
    """Two draws of which one has all false alarms and one has none: the clips say nothing, the draws everything."""
    draws_DN = np.stack([np.ones(50), np.zeros(50)])
    share = over_clips(ratio, draws_DN, np.ones(50), kind=Share)
    assert (share.value, share.low, share.high) == (0.5, 0, 1)
    # of one draw the clips alone
    one = over_clips(ratio, np.arange(50) % 2, np.ones(50), kind=Share)
    assert 0.3 < one.low < 0.5 < one.high < 0.7


def test_shares_of_100_percent_have_the_exact_interval() -> None:
    everything = over_clips(ratio, np.ones(10), np.ones(10), kind=Share)
    assert (everything.value, everything.high) == (1, 1)
    assert everything.low == pytest.approx(0.6915, abs=1e-4)
    none = over_clips(ratio, np.zeros(10), np.ones(10), kind=Share)
    assert (none.low, none.high) == (0, pytest.approx(0.3085, abs=1e-4))
    # all five false alarms of twenty clips are gone
    gone = over_clips(drop, np.zeros(20), np.repeat([1.0, 0], [5, 15]), kind=Share, trials=5)
    assert (gone.value, gone.low, gone.count) == (1, pytest.approx(all_or_none(1.0, 5).low), 20)


def test_speakers_are_drawn_together() -> None:
    errors, lengths = np.repeat([0.0, 1.0] * 5, 40), np.ones(400)
    speakers = [f"s{index // 40}" for index in range(400)]
    apart, together = (over_clips(ratio, errors, lengths, kind=Share, speakers=who) for who in ((), speakers))
    assert apart.value == together.value == 0.5
    assert together.high - together.low > 4 * (apart.high - apart.low)


def test_intervals_are_over_clips() -> None:
    errors, plain, lengths = np.array([2.0, 0, 1, 0]), np.array([1.0, 0, 0, 0]), np.array([4.0, 4, 8, 4])
    wer = over_clips(ratio, errors, lengths, kind=Interval)
    assert (wer.value, wer.count) == (0.15, 4)
    assert 0 <= wer.low < 0.15 < wer.high <= 0.5
    assert over_clips(rise_in_points, errors, plain, lengths, kind=Interval).value == pytest.approx(10)
    # the same in every clip: nothing to be uncertain of, though the clips themselves differ
    paired = over_clips(rise_in_points, plain + lengths, plain, lengths, kind=Interval)
    assert (paired.value, paired.low, paired.high) == (100, 100, 100)


def test_draws_without_a_false_alarm_to_compare_with_are_left_out() -> None:
    fewer = over_clips(drop, np.array([0.0, 0, 0]), np.array([1.0, 0, 0]), kind=Interval)
    assert (fewer.value, fewer.low, fewer.high) == (1, 1, 1)


def test_listen(listener: Transcriber) -> None:
    (one,) = listen(listener, [sound()], {})
    assert one == Heard("hello", ("hello",), None, 1.0)


def test_only_a_model_of_many_languages_is_told_which() -> None:
    module = nn.Linear(1, 1)
    assert defaults(AudioModel(module)) == {}
    module.generation_config = SimpleNamespace(is_multilingual=False)  # type: ignore[assignment]
    assert defaults(AudioModel(module)) == {}
    module.generation_config.is_multilingual = True
    assert defaults(AudioModel(module)) == {"language": "en"}


def folder(root: Path, rows: dict[str, list[tuple[str, ...]]]) -> Path:
    """{subset: [(split, text) or (split, text, label)]}"""
    for subset, clips in rows.items():
        (root / subset).mkdir(parents=True)
        with (root / subset / "manifest.csv").open("w", newline="") as file:
            table: Any = csv.writer(file)
            table.writerow(["path", "split", "text", "label"])
            for index, cells in enumerate(clips):
                soundfile.write(root / subset / f"{index}.wav", np.full(1600, 0.5), 16_000)
                table.writerow([f"{index}.wav", *cells])
    return root


def test_clips_are_speech_with_a_text_and_what_has_none(tmp_path: Path) -> None:
    audio = folder(
        tmp_path,
        {
            "digits": [("train", "one"), ("valid", "two")],
            "orders": [("train", "")],
            "esc10": [("train", ""), ("train", "")],
            "noise_rir": [("train", "", "noise"), ("train", "", "rir")],  # a noise and a room
            "singing": [("train", "")],
        },
    )
    clips = clips_of(Dataset(audio), "train")
    assert [one.name for one in clips.silent] == ["esc10/0.wav", "esc10/1.wav", "noise_rir/0.wav"]
    assert [one.name for one in clips.speech] == ["digits/0.wav"]
    assert [one.name for one in clips_of(Dataset(audio), "train", silent=["singing"]).silent] == ["singing/0.wav"]
    with pytest.raises(FalseAlarmError, match="split 'valid' has no clips without speech"):
        clips_of(Dataset(audio), "valid")
    with pytest.raises(FalseAlarmError, match="split 'train' has no clips with speech and its text"):
        clips_of(Dataset(audio), "train", speech=["orders"])
