"""Sounds and what is known of them, from folders with a `manifest.csv` each.

A subset may have an `intervals.csv` too, a row for each interval (columns `path`, `start_s`, `end_s`, `label`): then it
is known of all its clips what is heard when, and nothing is heard in those without a row.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from evaluation.data import manifest_rows
from hooks import AudioFileError
from hooks.model import Source

MANIFEST, INTERVALS = "manifest.csv", "intervals.csv"
COLUMNS = ("label", "speaker")

LabelledSpan = tuple[float, float, str]
"""From and to in seconds (the end is not in it), and what is heard there."""


@dataclass(frozen=True)
class LabelledSound:
    """A sound, its labels {"subset": "esc10", "label": "rain"}, its intervals, None where they are not known, and who
    speaks in it, "" where that is not known."""

    source: Source
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    intervals: tuple[LabelledSpan, ...] | None = None
    speaker: str = ""


def subsets_in(audio: Path) -> list[str]:
    """The folders in `audio` that have a manifest."""
    return sorted(path.parent.name for path in audio.glob(f"*/{MANIFEST}"))


def labelled_sounds(
    audio: Path,
    subsets: Sequence[str] | None = None,
    split: str = "test",
    limit: int | None = None,
    columns: Sequence[str] = COLUMNS,
) -> list[LabelledSound]:
    """The clips of a split, not yet read; at most `limit` a subset, spread evenly over its manifest.

    Their labels are the subset and what stands in `columns`; an empty cell is no label. `subsets` None means all that
    have clips of that split.

    Raises:
        AudioFileError: no clips, a manifest or list of intervals that cannot be read, or a clip that is not there.
    """
    sounds: list[LabelledSound] = []
    for subset in subsets_in(audio) if subsets is None else subsets:
        folder = audio / subset
        rows = manifest_rows(audio, subset, split)
        if not rows and subsets is not None:
            raise AudioFileError(f"{folder}: no clips of split {split!r}")
        intervals = intervals_of(folder / INTERVALS)
        count = len(rows) if limit is None else min(limit, len(rows))
        for index in np.linspace(0, len(rows) - 1, count).round().astype(int):
            row = rows[index]
            if not (folder / row["path"]).is_file():
                raise AudioFileError(f"{folder / MANIFEST}: names {row['path']}, which is not there")
            cells = {"subset": subset, **{column: (row.get(column) or "").strip() for column in columns}}
            sounds.append(
                LabelledSound(
                    folder / row["path"],
                    f"{subset}/{row['path']}",
                    {kind: value for kind, value in cells.items() if value},
                    None if intervals is None else tuple(intervals.get(row["path"], ())),
                    (row.get("speaker") or "").strip(),
                )
            )
    if not sounds:
        raise AudioFileError(f"{audio}: no clips of split {split!r} in folders with a {MANIFEST}")
    return sounds


def intervals_of(path: Path) -> dict[str, list[LabelledSpan]] | None:
    """The intervals of a subset by clip; None if there is no such file.

    Raises:
        AudioFileError: a line that is not an interval.
    """
    if not path.is_file():
        return None
    found: dict[str, list[LabelledSpan]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        for row in reader:
            try:
                start_s, end_s, label = float(row["start_s"]), float(row["end_s"]), row["label"].strip()
                if not (0 <= start_s < end_s and label):
                    raise ValueError
                found.setdefault(row["path"], []).append((start_s, end_s, label))
            except (KeyError, ValueError, TypeError, AttributeError):
                raise AudioFileError(
                    f"{path}, line {reader.line_num}: needs path, start_s, end_s (later, in seconds) and label"
                ) from None
    return found
