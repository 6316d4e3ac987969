"""Labels that are a function of a group, and groups in two splits."""

from __future__ import annotations

import pytest

from evaluation.confounds import ConfoundError, check_confounds, confound, split_notes
from evaluation.dataset import LabelledSound


def sounds(groups: list[str], speakers: list[str] | None = None, subset: str = "s") -> list[LabelledSound]:
    speakers = speakers or [""] * len(groups)
    return [
        LabelledSound("", "", {"subset": subset} | ({"group": group} if group else {}), None, speaker)
        for group, speaker in zip(groups, speakers, strict=True)
    ]


def test_a_label_equal_to_its_speaker_is_refused() -> None:
    speakers = ["ann", "bob"] * 4
    clips = sounds([""] * 8, speakers)
    with pytest.raises(ConfoundError, match="--label speaker: it is confounded with the speaker.*--allow-confounded"):
        check_confounds("speaker", clips, speakers)
    assert check_confounds("speaker", clips, speakers, allowed=True) == "confounded with speaker"


def test_three_speakers_of_each_class_are_enough() -> None:
    speakers = [f"{n}" for n in range(6)] * 2
    accents = ["uk" if int(speaker) < 3 else "us" for speaker in speakers]
    assert check_confounds("accent", sounds([""] * 12, speakers), accents) == ""
    fewer = ["uk" if int(speaker) < 2 else "us" for speaker in speakers]
    with pytest.raises(ConfoundError, match="some label has only 2"):
        check_confounds("accent", sounds([""] * 12, speakers), fewer)


def test_what_every_speaker_says_is_no_confound() -> None:
    speakers, digits = ["ann", "bob"] * 4, list("00112233")
    assert check_confounds("digit", sounds([""] * 8, speakers), digits) == ""


def test_a_corpus_is_a_group() -> None:
    clips = sounds([""] * 4, subset="rain") + sounds([""] * 4, subset="dogs")
    with pytest.raises(ConfoundError, match="with the subset"):
        check_confounds("label", clips, ["rain"] * 4 + ["dog"] * 4)


def test_clips_of_unknown_groups_do_not_count() -> None:
    assert confound(["a", "b"], ["", ""]) == ""
    assert confound(["a", "a", "b", "b"], ["x", "y", "", ""]) != ""


def test_a_group_in_two_splits_is_refused_and_a_speaker_noted() -> None:
    one, two = sounds(["r1", "r2"]), sounds(["r2", "r3"])
    with pytest.raises(ConfoundError, match="group r2 is in two splits"):
        split_notes(one, two)
    assert split_notes(one, two, allowed=True) == [
        "group r2 is in two splits: the accuracy may come from recognising them"
    ]
    ann, both = sounds(["", ""], ["ann", "ann"]), sounds(["", ""], ["ann", "bob"])
    assert split_notes(ann, both) == ["speaker ann is in two splits: the accuracy may come from recognising them"]
    assert split_notes(ann, sounds([""], ["bob"])) == []
