"""Labelled clips from folders with a `manifest.csv` each (columns `path`, `split`, `label`, `text`, ...)."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hooks import AudioFileError, Clip, read_clip

Row = dict[str, str]


def manifest_rows(audio: Path, subset: str, split: str) -> list[Row]:
    """The rows of one subset and split.

    Raises:
        AudioFileError: there is no manifest, or it lacks the columns `path` and `split`.
    """
    manifest = audio / subset / "manifest.csv"
    if not manifest.is_file():
        raise AudioFileError(f"{manifest}: no such file; the folder {audio} should hold {subset}/manifest.csv")
    with manifest.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"path", "split"} <= set(rows[0]):
        raise AudioFileError(f"{manifest}: needs rows with the columns path and split")
    return [row for row in rows if row["split"] == split]


@dataclass(frozen=True)
class SoundFile:
    """A file of a subset; `name` is its path below the folder of all subsets, and the speaker "" if not known."""

    subset: str
    name: str
    path: Path
    speaker: str = ""


def labelled_files(
    audio: Path,
    subsets: Sequence[str],
    split: str,
    limit: int | None = None,
    leave_out: Collection[str] = (),
) -> Iterator[SoundFile]:
    """The files of a split; at most `limit` a subset, spread evenly over its manifest.

    Rows whose `label` is in `leave_out` do not count.

    Raises:
        AudioFileError: a subset has no clips of that split.
    """
    for subset in subsets:
        rows = [row for row in manifest_rows(audio, subset, split) if row.get("label") not in leave_out]
        if not rows:
            raise AudioFileError(f"{audio / subset}: no clips of split {split!r}")
        count = len(rows) if limit is None else min(limit, len(rows))
        for index in np.linspace(0, len(rows) - 1, count).round().astype(int):
            path, speaker = rows[index]["path"], (rows[index].get("speaker") or "").strip()
            yield SoundFile(subset, f"{subset}/{path}", audio / subset / path, speaker)


def labelled_clips(
    audio: Path,
    subsets: Sequence[str],
    split: str,
    limit: int | None = None,
    leave_out: Collection[str] = (),
) -> Iterator[tuple[SoundFile, Clip]]:
    """The `labelled_files`, each with its sound.

    Raises:
        AudioFileError: a subset has no clips of that split, or one that cannot be read.
    """
    for file in labelled_files(audio, subsets, split, limit, leave_out):
        clip = read_clip(file.path)
        yield file, Clip(clip.waveform, clip.sample_rate, file.name)
