"""Rows of the tables of `evaluation.gate_study`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evaluation.dataset import LabelledSound
from evaluation.gate_methods import Decision
from evaluation.report import Interval, Report, Row, Share
from evaluation.transcripts import Heard, drop, errors_in, over_clips, ratio, rise_in_points

CLIPS = ("case", "method", "choice")
SILENT, SPEECH = ("with words", "alarms", "gone", "words/min"), ("WER", "WER change", "changed", "gate opens")
LOST = {"found, none lost": 0.0, "found, 1 % lost": 0.01, "found, 5 % lost": 0.05}
"""Shares of the clips with speech on which a gate opens."""
COLUMNS = (*CLIPS, *SILENT, *SPEECH, "clips", "AUROC", *LOST)
EMPTY: Row = dict.fromkeys(COLUMNS)


def row(
    case: str,
    method: str,
    choice: str,
    silent: Sequence[LabelledSound],
    speech: Sequence[LabelledSound],
    heard: Sequence[Heard],
    plain: Sequence[Heard],
    decision: Decision | None,
) -> Row:
    """A method on sounds without speech and with it, beside what is written without it. `changed` are clips with
    speech whose words are others, `gate opens` those on which the gate is open."""
    N, is_plain = len(silent), heard is plain
    found: Row = {**EMPTY, "case": case, "method": method, "choice": choice or None}
    if N:
        alarms_N, before_N = (np.array([float(bool(one.words)) for one in each[:N]]) for each in (heard, plain))
        words_N = np.array([float(len(one.words)) for one in heard[:N]])
        minutes_N = np.array([one.seconds / 60 for one in plain[:N]])
        who = [sound.speaker for sound in silent]
        found["with words"] = f"{alarms_N.sum():.0f} of {N}"
        found["alarms"] = over_clips(ratio, alarms_N, np.ones(N), kind=Share, speakers=who)
        if not is_plain and before_N.any():
            trials = int(before_N.sum())
            found["gone"] = over_clips(drop, alarms_N, before_N, kind=Share, speakers=who, trials=trials)
        found["words/min"] = over_clips(ratio, words_N, minutes_N, kind=Interval, speakers=who)
    if speech:
        (errors_M, lengths_M), (before_M, _) = errors_in(speech, heard[N:]), errors_in(speech, plain[N:])
        who = [sound.speaker for sound in speech]
        ones_M = np.ones(len(speech))
        found["WER"] = over_clips(ratio, errors_M, lengths_M, kind=Share, speakers=who)
        if not is_plain:
            found["WER change"] = over_clips(rise_in_points, errors_M, before_M, lengths_M, kind=Interval, speakers=who)
            changed_M = np.array([float(a.words != b.words) for a, b in zip(heard[N:], plain[N:], strict=True)])
            found["changed"] = over_clips(ratio, changed_M, ones_M, kind=Share, speakers=who)
        if decision is not None:
            opened_M = np.array([float(decision.opens(sound)) for sound in speech])
            found["gate opens"] = over_clips(ratio, opened_M, ones_M, kind=Share, speakers=who)
    return found


def by_case(report: Report) -> list[Report]:
    """A table for each case, without its empty columns."""
    kinds: dict[str, list[Row]] = {}
    for one in report.rows:
        kinds.setdefault(str(one["case"]).partition(",")[0].partition(":")[0], []).append(dict(one))
    tables = []
    for kind, rows in kinds.items():
        shown = [name for name in COLUMNS if any(one[name] is not None for one in rows)]
        if len({one["case"] for one in rows}) == 1:
            shown.remove("case")
        tables.append(Report(f"{report.title}: {kind}", [{name: one[name] for name in shown} for one in rows]))
    return tables
