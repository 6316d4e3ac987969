"""Recordings with labels: a folder with a `manifest.csv`, a folder of such folders (subsets), or any CSV file.

A manifest has a column `path`, relative to it, and as far as they are known `split` (train, valid or test), `label`,
`speaker`, `text` (what is said) and `speech` (yes or no). A subset may have an `intervals.csv` too, a row for each
interval (columns `path`, `start_s`, `end_s`, `label`): then it is known of all its clips what is in them when, and
nothing is in those without a row. Corpora that name their columns or splits in another way are read by `columns` and
`splits`.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from hooks import AudioFileError, Clip, read_clip
from hooks.model import Source

MANIFEST, INTERVALS = "manifest.csv", "intervals.csv"
LABELS = ("label", "speaker")
DIVIDED = ("train", "valid", "train", "test")
"""The splits of the files of one label, in turn, where a manifest has no splits and something is trained."""
IMPULSE_RESPONSE = "rir"
"""Label of room impulse responses, which may lie among noises and are not sounds to listen to."""

Row = dict[str, str]
LabelledSpan = tuple[float, float, str]
"""Start and end in seconds (the end is exclusive), and the label of what is in between."""


@dataclass(frozen=True)
class LabelledSound:
    """A sound with its labels {"subset": "esc10", "label": "rain"}, its intervals (None where they are not known), and
    its speaker ("" where that is not known). `name` is its path below the folder of all subsets."""

    source: Source
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    intervals: tuple[LabelledSpan, ...] | None = None
    speaker: str = ""

    @property
    def subset(self) -> str:
        return self.labels.get("subset", "")

    @property
    def path(self) -> Path:
        """Of a sound that is a file."""
        assert isinstance(self.source, str | Path)
        return Path(self.source)


@dataclass(frozen=True)
class Dataset:
    """The subsets in a folder, or one CSV file.

    `columns` is {name here: name in the manifests}, as {"text": "sentence"}, and `splits` likewise, as {"valid":
    "dev"}. Where a manifest has no column of splits all its rows are in every split, or with `divide`, for what trains
    something, the files of each label are in `DIVIDED` in turn.
    """

    folder: Path
    columns: Mapping[str, str] = field(default_factory=dict)
    splits: Mapping[str, str] = field(default_factory=dict)
    divide: bool = False

    @cached_property
    def manifests(self) -> dict[str, Path]:
        """{subset: its manifest}."""
        if self.folder.is_file():
            return {self.folder.stem: self.folder}
        found = {path.parent.name: path for path in sorted(self.folder.glob(f"*/{MANIFEST}"))}
        if (self.folder / MANIFEST).is_file():
            found[self.folder.resolve().name] = self.folder / MANIFEST
        return found

    @property
    def subsets(self) -> list[str]:
        return list(self.manifests)

    def check(self) -> Dataset:
        """Raises AudioFileError where there are no manifests."""
        if not self.manifests:
            raise AudioFileError(f"{self.folder}: no {MANIFEST} there, and no folders with a {MANIFEST}")
        return self

    def manifest(self, subset: str) -> Path:
        """Raises AudioFileError if there is none."""
        if subset not in self.manifests:
            path = self.folder / subset / MANIFEST
            raise AudioFileError(f"{path}: no such file; the folder {self.folder} should hold {subset}/{MANIFEST}")
        return self.manifests[subset]

    def rows(self, subset: str) -> list[Row]:
        """The rows of a manifest, with the names of columns and splits that are used here.

        Raises:
            AudioFileError: there is no manifest, it cannot be read, or it lacks a column.
        """
        manifest = self.manifest(subset)
        try:
            with manifest.open(encoding="utf-8-sig", newline="") as file:
                read = list(csv.DictReader(file))
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise AudioFileError(f"{manifest}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
        needed = {self.columns.get("path", "path"), *self.columns.values()}
        if not read or not needed <= set(read[0]):
            raise AudioFileError(f"{manifest}: needs rows with the columns {' and '.join(sorted(needed))}")
        ours = {theirs: name for name, theirs in self.columns.items()}
        split_of = {theirs: name for name, theirs in self.splits.items()}
        rows = []
        seen: Counter[str] = Counter()
        for cells in read:
            row = {ours.get(name, name): (cell or "").strip() for name, cell in cells.items() if isinstance(name, str)}
            if "split" in row:
                row["split"] = split_of.get(row["split"], row["split"])
            elif self.divide:
                label = row.get("label", "")
                row["split"] = DIVIDED[seen[label] % len(DIVIDED)]
                seen[label] += 1
            rows.append(row)
        return rows

    def files(self, subset: str) -> list[str]:
        """Names, relative to the manifest's folder, of all files of a subset: a result depends on their content."""
        return [self.manifest(subset).name, INTERVALS, *sorted({row["path"] for row in self.rows(subset)})]

    def has_column(self, column: str) -> bool:
        return any(column in row for subset in self.subsets for row in self.rows(subset)[:1])

    def has_split(self, split: str) -> bool:
        return any(row.get("split", split) == split for subset in self.subsets for row in self.rows(subset))

    def sounds(
        self,
        subsets: Sequence[str] | None = None,
        split: str = "test",
        limit: int | None = None,
        labels: Sequence[str] = LABELS,
        leave_out: Collection[str] = (),
    ) -> list[LabelledSound]:
        """The clips of a split, not yet read; at most `limit` a subset, spread evenly over its manifest.

        Their labels are the subset and the cells of the columns `labels`; an empty cell is not a label. Rows whose
        `label` is in `leave_out` do not count. `subsets` None means all that have clips of that split.

        Raises:
            AudioFileError: no clips, a manifest or list of intervals that cannot be read, or a clip that is missing.
        """
        sounds: list[LabelledSound] = []
        for subset in self.subsets if subsets is None else subsets:
            manifest = self.manifest(subset)
            rows = [row for row in self.rows(subset) if row.get("split", split) == split]
            rows = [row for row in rows if row.get("label") not in leave_out]
            if not rows and subsets is not None:
                raise AudioFileError(f"{manifest.parent}: no clips of split {split!r}")
            intervals = intervals_of(manifest.parent / INTERVALS)
            count = len(rows) if limit is None else min(limit, len(rows))
            for index in np.linspace(0, len(rows) - 1, count).round().astype(int):
                row = rows[index]
                path = row["path"]
                if not (manifest.parent / path).is_file():
                    raise AudioFileError(f"{manifest}: names {path}, which is not there")
                cells = {"subset": subset, **{column: row.get(column, "") for column in labels}}
                sounds.append(
                    LabelledSound(
                        manifest.parent / path,
                        f"{subset}/{path}",
                        {kind: value for kind, value in cells.items() if value},
                        None if intervals is None else tuple(intervals.get(path, ())),
                        row.get("speaker", ""),
                    )
                )
        if not sounds:
            raise AudioFileError(f"{self.folder}: no clips of split {split!r} in folders with a {MANIFEST}")
        return sounds


def read_sounds(sounds: Sequence[LabelledSound]) -> Iterator[tuple[LabelledSound, Clip]]:
    """Each with its samples, named as it is. Raises AudioFileError for one that cannot be read."""
    for sound in sounds:
        clip = read_clip(sound.path)
        yield sound, Clip(clip.waveform, clip.sample_rate, sound.name)


def is_impulse_response(labels: Mapping[str, str]) -> bool:
    return labels.get("label") == IMPULSE_RESPONSE


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
