"""The rows of the table of false alarms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from evaluation.report import Interval, Row, Share
from evaluation.steering_search import Trial
from evaluation.transcripts import Clips, Heard, Score, drop, over_clips, ratio, rise_in_points


def able(plain: Score) -> np.ndarray:
    """Which clips with speech [M] the recogniser can write: at least half of the words; all if there are none."""
    able_M = 2 * plain.errors_M <= plain.lengths_M
    return able_M if able_M.any() else ~able_M


def row(name: str, choice: str, score: Score, plain: Score, able_M: np.ndarray) -> Row:
    """A line of the table. `fewer` is None where the baseline has no false alarm, WER changes are in points.

    Of several draws means, and the fewest and the most false alarms that one of them has.
    """
    is_plain, ones_N = score is plain, np.ones_like(plain.alarms_N)
    each_D, silent, before = np.atleast_2d(score.alarms_N).sum(1), score.speakers_N, int(plain.alarms_N.sum())
    spread = f" ({each_D.min():.0f} to {each_D.max():.0f})" if len(each_D) > 1 else ""

    def words(name: str, clips_M: np.ndarray) -> Row:
        now, before = score.only(clips_M), plain.only(clips_M)
        counts, who = (now.errors_M, before.errors_M, before.lengths_M), now.speakers_M
        change = None if is_plain else over_clips(rise_in_points, *counts, kind=Interval, speakers=who)
        errors = np.atleast_2d(now.errors_M).sum(1).mean()
        return {
            f"{name} errors": f"{errors:.3g} of {before.lengths_M.sum():.0f}",
            name: over_clips(ratio, now.errors_M, now.lengths_M, kind=Share, speakers=who),
            f"{name} change": change,
        }

    return {
        "method": name,
        "choice": choice,
        "alarms": f"{each_D.mean():.3g} of {len(ones_N)}{spread}",
        "false alarms": over_clips(ratio, score.alarms_N, ones_N, kind=Share, speakers=silent),
        "fewer": None
        if is_plain or not before
        else over_clips(drop, score.alarms_N, plain.alarms_N, kind=Share, speakers=silent, trials=before),
        "words/min": over_clips(ratio, score.words_N, score.minutes_N, kind=Interval, speakers=silent),
        "no_speech_prob < 0.5": None
        if score.taken_N is None
        else over_clips(ratio, score.taken_N, ones_N, kind=Share, speakers=silent),
        **words("WER", np.ones_like(able_M)),
        **words("WER, able", able_M),
    }


def trial_row(trial: Trial) -> Row:
    """JSON knows no infinity."""
    return {
        "method": str(trial.method),
        "WER": trial.wer,
        "false alarms": None if math.isinf(trial.alarms) else trial.alarms,
    }


def written(clips: Clips, heard: Mapping[str, Sequence[Heard]]) -> list[Row]:
    """What each method wrote of each clip."""
    return [
        {
            "clip": sound.name,
            "said": sound.labels.get("text", "") if index >= len(clips.silent) else "",
            **{name: listened[index].text for name, listened in heard.items()},
        }
        for index, sound in enumerate(clips.all)
    ]
