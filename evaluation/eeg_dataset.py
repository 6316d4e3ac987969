"""A manifest of EEG: who heard which sound when, a row for each subject and run.

Columns: `subject`; `run`, the piece of sound that was played; `audio`, its file, the same for all subjects; `eeg`, the
file of what was recorded; `start_s`, the second of that recording at which the sound starts (0 where empty); `split`,
`dev` for runs on which lags are chosen and `test` for those on which they are tested. Paths are relative to the
manifest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from evaluation.brain import BrainError, Study
from evaluation.dataset import Dataset
from evaluation.eeg import Reference, excerpt
from evaluation.report import Progress
from hooks.errors import shortened

COLUMNS = ("subject", "run", "eeg", "split")
SPLITS = ("dev", "test")


class EEGDataset(Dataset):
    """`path` is the sound here, whose column is `audio`."""

    def files(self, subset: str) -> list[str]:
        return [*super().files(subset), *sorted({row["eeg"] for row in self.rows(subset)})]


def eeg_dataset(manifest: Path, columns: Mapping[str, str], splits: Mapping[str, str]) -> EEGDataset:
    ours = {"path": "audio", **{name: name for name in COLUMNS}}
    named = {"path" if name == "audio" else name: theirs for name, theirs in columns.items()}
    return EEGDataset(manifest, ours | named, splits)


@dataclass(frozen=True)
class Heard:
    """A row: paths are complete."""

    subject: str
    run: str
    audio: Path
    eeg: Path
    start_s: float
    split: str


@dataclass(frozen=True)
class Listening:
    """Rows of a manifest that fit together."""

    rows: tuple[Heard, ...]

    @property
    def audio(self) -> dict[str, Path]:
        """{run: its sound}, runs in order, those of split dev first."""
        ordered = sorted(self.rows, key=lambda row: SPLITS.index(row.split))
        return {row.run: row.audio for row in ordered}

    def runs(self, split: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(row.run for row in self.rows if row.split == split))

    def study(
        self,
        channel: str,
        lengths_s: Mapping[str, float],
        rate: float,
        band: tuple[float, float],
        reference: Reference,
        progress: Progress = iter,
    ) -> Study:
        """The EEG at one channel, cut to the sounds of these lengths.

        Raises:
            BrainError: a file that cannot be used, or too few subjects.
        """
        subjects = tuple(dict.fromkeys(row.subject for row in self.rows))
        eeg: dict[str, list[torch.Tensor]] = {run: [] for run in self.audio}
        present: dict[str, list[int]] = {run: [] for run in self.audio}
        for row in progress(list(self.rows)):
            found_1T = excerpt(
                row.eeg, [channel], row.start_s, lengths_s[row.run], rate=rate, band=band, reference=reference
            )
            eeg[row.run].append(torch.from_numpy(found_1T[0]))
            present[row.run].append(subjects.index(row.subject))
        shortest = {run: min(map(len, some)) for run, some in eeg.items()}
        return Study(
            subjects,
            {run: torch.stack([one[: shortest[run]] for one in some]) for run, some in eeg.items()},
            {run: tuple(some) for run, some in present.items()},
            self.runs("dev"),
            self.runs("test"),
            rate,
        )


def listening(dataset: EEGDataset, limit: int | None = None) -> Listening:
    """The rows of all manifests, checked; of at most `limit` runs of each split.

    Raises:
        BrainError: a cell that is empty or makes no sense, rows that contradict each other, or a missing file.
        AudioFileError: a manifest cannot be read, or lacks a column.
    """
    found: dict[tuple[str, str], Heard] = {}
    of_run: dict[str, Heard] = {}
    for subset in dataset.check().subsets:
        manifest = dataset.manifest(subset)
        for number, cells in enumerate(dataset.rows(subset), 2):
            where = f"{manifest}, row {number}"
            row = heard(cells, manifest, where)
            first = of_run.setdefault(row.run, row)
            if (first.audio, first.split) != (row.audio, row.split):
                raise BrainError(f"{where}: run {row.run} has another sound or split in an earlier row")
            if (row.subject, row.run) in found:
                raise BrainError(f"{where}: subject {row.subject} has run {row.run} in an earlier row")
            found[row.subject, row.run] = row
    kept = [run for split in SPLITS for run in [run for run, one in of_run.items() if one.split == split][:limit]]
    rows = tuple(row for row in found.values() if row.run in kept)
    for row in rows:
        for what, path in (("sound", row.audio), ("EEG file", row.eeg)):
            if not path.is_file():
                raise BrainError(f"subject {row.subject}, run {row.run}: there is no {what} {path}")
    if len({row.subject for row in rows}) < 2:
        raise BrainError(f"{dataset.folder}: t-tests over subjects need two or more, and all rows are of one")
    return Listening(rows)


def heard(cells: Mapping[str, str], manifest: Path, where: str) -> Heard:
    for name in ("subject", "run", "path", "eeg"):
        if not cells.get(name):
            raise BrainError(f"{where}: no {'audio' if name == 'path' else name}")
    if cells["split"] not in SPLITS:
        raise BrainError(
            f"{where}: split {shortened(cells['split'], 40)!r} is neither dev nor test; other names: --splits dev=NAME"
        )
    try:
        start_s = float(cells.get("start_s") or 0)
        if not 0 <= start_s < math.inf:
            raise ValueError
    except ValueError:
        raise BrainError(
            f"{where}: start_s is {shortened(cells['start_s'], 40)!r}, and not a number of seconds from 0 on"
        ) from None
    return Heard(
        cells["subject"],
        cells["run"],
        manifest.parent / cells["path"],
        manifest.parent / cells["eeg"],
        start_s,
        cells["split"],
    )
