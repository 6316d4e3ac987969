"""`Corpus`: how a public corpus is read as rows of a manifest, and what all of them need for that."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hooks.errors import AudioSteerError

Row = dict[str, str]
"""`path` (absolute, in the manifest relative to it; of EEG `audio` and `eeg`), `split`, and cells of other columns; ""
where nothing is known."""

FIRST = ("path", "split", "label", "speaker", "group")
"""Columns that stand first."""
PATHS = ("path", "f0_path", "audio", "eeg")
"""Columns that are files."""
SHARES = {"train": 0.7, "valid": 0.15, "test": 0.15}
AUDIO = (".wav", ".flac", ".mp3", ".ogg")


class CorpusError(AudioSteerError):
    """A folder that does not hold the corpus, a table that cannot be read, or an option that makes no sense."""


@dataclass(frozen=True)
class Request:
    """Where a corpus lies. `seed` is that of splits that the corpus does not have itself.

    For corpora that are a table of other corpora's files: the `table`, its `columns` {name here: name there}, and the
    folders (`roots`) of those corpora by their names.
    """

    folder: Path
    seed: int = 0
    table: Path | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    roots: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """The rows of the files that are there, and the names of those that should be and are not."""

    rows: list[Row]
    missing: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Corpus:
    """`read` raises CorpusError where the folder does not hold the corpus."""

    name: str
    read: Callable[[Request], Found]


def divided(class_of: Mapping[str, str], seed: int = 0) -> dict[str, str]:
    """{group: split} of {group: class}: 70 % of the groups of each class in train, 15 % in valid, 15 % in test.

    A class of two groups has one in train and one in test, of three and more it has at least one in each.
    """
    rng = np.random.default_rng(seed)
    splits: dict[str, str] = {}
    for one in sorted(set(class_of.values())):
        groups = sorted(group for group, its in class_of.items() if its == one)
        groups = [groups[index] for index in rng.permutation(len(groups))]
        few = max(1, round(SHARES["test"] * len(groups)))
        test, valid = few if len(groups) > 1 else 0, few if len(groups) > 2 else 0
        for index, group in enumerate(groups):
            splits[group] = "test" if index < test else "valid" if index < test + valid else "train"
    return splits


def only_folder(folder: Path, holds: Sequence[str], corpus: str) -> Path:
    """`folder`, or the only folder in it or below, that holds a file or folder of one of these names.

    Raises:
        CorpusError: there is none, or several are.
    """
    if not folder.is_dir():
        raise CorpusError(f"{folder}: no such folder")
    if any((folder / name).exists() for name in holds):
        return folder
    found = sorted({path.parent for name in holds for path in folder.glob(f"*/{name}")})
    found = found or sorted({path.parent for name in holds for path in folder.glob(f"*/*/{name}")})
    if len(found) != 1:
        what = f"{len(found)} folders with" if found else "no"
        raise CorpusError(f"{folder}: {what} {' or '.join(holds)} there, which {corpus} has one of")
    return found[0]


def read_lines(path: Path) -> list[str]:
    """Raises CorpusError for a text file that cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error


def read_table(path: Path, columns: Iterable[str]) -> list[Row]:
    """Rows of a CSV file (or .tsv) with these columns. Raises CorpusError where there are none, or a column lacks."""
    lines = read_lines(path)
    reader = csv.DictReader(lines, delimiter="\t" if path.suffix == ".tsv" else ",")
    missing = [name for name in columns if name not in (reader.fieldnames or ())]
    if missing:
        there = ", ".join(reader.fieldnames or ()) or "none"
        raise CorpusError(f"{path}: no column {' or '.join(missing)}; there are {there}. Say which with --columns")
    return [{name: (cell or "").strip() for name, cell in row.items() if isinstance(name, str)} for row in reader]


def write_rows(rows: Sequence[Row], folder: Path, path: Path) -> None:
    """Write a manifest that will lie in `folder`: `PATHS` are relative to that."""
    names = {name: None for row in rows for name in row}
    heads = [*(name for name in FIRST if name in names), *(name for name in names if name not in FIRST)]
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, heads, restval="")
        table.writeheader()
        for row in rows:
            places = {name: relative(row[name], folder) for name in PATHS if row.get(name)}
            table.writerow(row | places)


def relative(path: str, folder: Path) -> str:
    return Path(os.path.relpath(path, folder)).as_posix()
