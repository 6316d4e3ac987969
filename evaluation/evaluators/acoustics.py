"""`steer evaluate acoustics`: how often requested changes of loudness, brightness and pitch are met, and what drifts.

Every clip is edited from file to file, and the written file is measured against the input file. Beside it stands what
the same edit of features changes of the codec's output against its plain round trip. The control are random directions
that move the activation as far, with the same search.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
from pydantic import Field

from evaluation import figures
from evaluation.concept_sets import DESCRIBED, has_pitch
from evaluation.dataset import LabelledSound
from evaluation.evaluators.options import RequestsConfig, for_codecs
from evaluation.file_edits import (
    PITCH_FRAMES,
    REQUESTS,
    FileEditor,
    Goals,
    is_met,
    measured_file,
    requests_for,
    why_not,
)
from evaluation.frame import Evaluator
from evaluation.intervals import INTERVALS, clips_in, clustered_bootstrap, clustered_share
from evaluation.report import Progress, Report, Row, TableRow, line
from steer.acoustics import Acoustics, change
from steer.calibrate import error_of
from steer.errors import EditError
from steer.goals import Changes

TOGETHER = {"loudness": 3.0, "pitch": 2.0, "brightness": 20.0}
UNITS = {"loudness": "dB", "brightness": "%", "pitch": "cents"}
SUBSETS = ("notes", "singing", "ljspeech", "speech_misc", "digits", "esc10")
NOTHING: Changes = dict.fromkeys(REQUESTS)
FINE_CENTS = 25.0
AGAINST = "met against round trip"
TIGHT = f"within {FINE_CENTS:.0f} cents"
HELD = "met, others held"
MEASURED = {
    "tolerances": {"loudness": "0.5 dB", "brightness": "5 % of the wanted centroid", "pitch": "50 cents"},
    "met": f"the written file against the input file; pitch by CREPE full, {PITCH_FRAMES} frames (the search: tiny)",
    HELD: "as met, and what was not asked for within the tolerances too",
    AGAINST: "the codec's output with the same edits of features against its plain output",
    "control": "random directions that move the activation as far as the vectors, with the same search",
    "drift": "median of the absolute changes of what was not asked for",
    "intervals": INTERVALS,
}


class AcousticsConfig(RequestsConfig):
    """How often requested changes of loudness, brightness and pitch are met in the user's file, and what drifts.

    Every clip is edited from file to file and measured on the written file.
    """

    residual: Literal["ratio", "drop", "keep"] | None = Field(
        default=None, description="How the change reaches the sound. Default: as steer edit does it."
    )
    control_clips: int = Field(default=10, ge=0, description="Clips of a subset that random directions are tried on.")


def goals_for(name: str, attributes: Sequence[str], requests: int | None, seed: int) -> list[tuple[str, Goals]]:
    """(attribute, goals) of a clip; with all three attributes also `together`."""
    single = [(one, {one: value}) for one in attributes for value in requests_for(name, one, requests, seed)]
    return [*single, ("together", TOGETHER)] if set(attributes) >= set(TOGETHER) else [*single]


def in_cents(changes: Mapping[str, float | None]) -> Changes:
    pitch = changes["pitch"]
    return {**changes, "pitch": None if pitch is None else 100 * pitch}


def others_held(goals: Goals, changes: Changes) -> bool:
    """Whether what was not asked for changed by no more than its tolerance, where it can be measured."""
    return all(
        error_of(name, 0.0, value) <= 1.0 for name, value in changes.items() if name not in goals and value is not None
    )


def edit_row(editor: FileEditor, file: LabelledSound, before: Acoustics, goals: Goals, round_trip: bool = True) -> Row:
    """One edit of a file, measured; an edit that cannot be made is not met."""
    try:
        edit = editor.edit(file.path, goals)
    except EditError as error:
        codec = {"round trip": NOTHING, AGAINST: False} if round_trip else {}
        return {**NOTHING, "met": False, TIGHT: False, HELD: False, "failed": str(error), **codec}
    # the pitch that drifts is measured too, where the file has one
    changes = change(before, measured_file(edit.path, before.pitch_track is not None))
    met = is_met(goals, changes)
    row: Row = {
        **in_cents(changes),
        "met": met,
        HELD: met and others_held(goals, changes),
        TIGHT: is_met(goals, changes, FINE_CENTS),
        "failed": None,
        "search": in_cents(edit.outcome.measured),
        "strengths": edit.outcome.strengths,
        "trials": edit.trials,
        "limited_db": edit.outcome.limited_db,
        "clipped": edit.outcome.clipped,
    }
    if round_trip:
        codec_changes = change(*editor.round_trip(file.path, edit, goals))
        row |= {"round trip": in_cents(codec_changes), AGAINST: is_met(goals, codec_changes)}
    return row


def summary(clips: Sequence[Row]) -> list[Row]:
    """Per attribute and subset: how many were met, and the median drift of the rest; last the random directions."""
    rows = []
    for attribute in dict.fromkeys(row["attribute"] for row in clips):
        chosen = [row for row in clips if row["attribute"] == attribute]
        for subset in (*dict.fromkeys(row["subset"] for row in chosen), "all"):
            some = [row for row in chosen if subset in (row["subset"], "all")]
            made = [row for row in some if not row["left out"]]
            whose = ("clip", "speaker")
            control = [{key: row[key] for key in whose} | row["control"] for row in made if row["control"]]
            row = table_row(attribute, subset, made)
            row["control met"] = share(control, "met") if control else None
            row["control met, others held"] = share(control, HELD) if control else None
            row["left out"] = ", ".join(f"{n} {why}" for why, n in Counter(r["left out"] for r in some).items() if why)
            rows.append(row)
            if subset == "all" and control:
                rows.append(
                    {
                        **table_row(attribute, "all, random directions", control),
                        "control met": None,
                        "control met, others held": None,
                        "left out": "",
                    }
                )
    return rows


def table_row(attribute: str, name: str, made: Sequence[Row]) -> Row:
    pitched = attribute in ("pitch", "together")
    row: Row = {
        "attribute": attribute,
        "clips": name,
        "edits": len(made),
        "met": share(made, "met") if made else None,
        TIGHT: share(made, TIGHT) if made and pitched else None,
        HELD: share(made, HELD) if made else None,
        AGAINST: share(made, AGAINST) if made and AGAINST in made[0] else None,
    }
    for other, unit in UNITS.items():
        drift = [r for r in made if r[other] is not None] if other != attribute != "together" else []
        values = [abs(r[other]) for r in drift]
        median = clustered_bootstrap(values, clips_in(drift), np.median) if drift else None
        row[f"{other} drift ({unit})"] = median
    return row


def share(rows: Sequence[Row], key: str) -> Any:
    return clustered_share([row[key] for row in rows], clips_in(rows))


def run(config: AcousticsConfig, progress: Progress = iter) -> Report:
    """Edit the clips of a split and measure. What cannot be measured in a clip is counted as left out."""
    steered, subsets = config.steered(), config.chosen_subsets(SUBSETS)
    vectors, attributes = config.control_vectors(tuple(REQUESTS))
    jobs = []
    for subset in subsets:
        files = config.dataset.sounds([subset], config.split, config.clips, DESCRIBED)
        controls = np.linspace(0, len(files) - 1, min(config.control_clips, len(files))).round().astype(int).tolist()
        jobs += [(file, index in controls) for index, file in enumerate(files)]
    rows: list[Row] = []
    with TemporaryDirectory(prefix="steer-") as folder:
        editor = FileEditor(steered, vectors, Path(folder), config.residual)
        for file, controlled_too in progress(jobs):
            pitched = has_pitch(file.labels)
            before = measured_file(file.path, pitched)
            names = [name for name in attributes if pitched or name != "pitch"]
            for attribute, goals in goals_for(file.name, names, config.requests, config.seed):
                reason = why_not(before, goals)
                row: Row = {"clip": file.name, "speaker": file.speaker, "subset": file.subset}
                row |= {"attribute": attribute, "goals": dict(goals), "left out": reason, "control": None}
                if not reason:
                    row |= edit_row(editor, file, before, goals)
                    if controlled_too:
                        random = editor.at_random(file.name, config.seed)
                        row["control"] = edit_row(random, file, before, goals, round_trip=False)
                rows.append(row)
    about = config.about(steered, attributes)
    title = (
        f"Requested changes that the edited file has: {steered.model.name} with {', '.join(about['saes'].values())}, "
        f"{len(jobs)} {config.split} clips"
    )
    about["requests"] |= {"together": TOGETHER}
    about |= {
        "clips": {subset: sum(file.subset == subset for file, _ in jobs) for subset in subsets},
        "control clips a subset": config.control_clips,
        "residual": config.residual or "the editor's own: ratio",
        **MEASURED,
    }
    return Report(title, summary(rows), rows, about)


def headline(report: Report) -> list[TableRow]:
    return [
        line(f"requests met in the file, {row['attribute']}", row["met"], random_directions=row["control met"])
        for row in report.rows
        if row["clips"] == "all"
    ]


def panels(reports: Mapping[str, Report]) -> list[figures.Panel]:
    return [panel for report in reports.values() for panel in figures.requested(report)]


ACOUSTICS = Evaluator(
    name="acoustics",
    config=AcousticsConfig,
    run=run,
    figure=lambda report: figures.figure(figures.requested(report), report.title),
    headline=headline,
    panels=panels,
    intervals=False,
    suits=for_codecs,
    extras=(("matplotlib", "eval"), ("torchcrepe", "eval")),
)
