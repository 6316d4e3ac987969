"""Vox-Profile (Feng et al. 2025, arXiv 2505.14648): accent labels and splits of 11 corpora that one obtains oneself.

It is a table (`--table`) of files of other corpora. `--columns` says how it names the columns file, accent, split,
speaker and, if it has one, corpus; files lie below FOLDER, or below the corpus' own folder (`--roots NAME=FOLDER`).
Files that are not there are listed and left out.

Columns: accent (the label, as the table has it), speaker, corpus, and the two labels of codec-accent-sae.txt
(arXiv 2603.18359, section 3.1): us_uk, US (North America) or UK (the British Isles without Ireland), and us_other, US
or Other (neither North America nor the British Isles). Accents differ by corpus, hence by microphone: predict the
corpus as a control.

To check on arrival: the names of the table's columns, accents and splits. A table that has British Isles as one accent
cannot leave Ireland out.
"""

from __future__ import annotations

from pathlib import Path

from evaluation.datasets.corpus import Corpus, CorpusError, Found, Request, Row, read_table

NEEDED = ("file", "accent", "split", "speaker")
CORPUS = "corpus"
US = {"north america", "us", "american"}
UK = {"english", "scottish", "welsh", "northern irish", "british isles", "uk"}
IRISH = {"irish"}
SPLITS = {"dev": "valid", "val": "valid", "validation": "valid"}


def read(request: Request) -> Found:
    if request.table is None:
        raise CorpusError("voxprofile: pass its table with --table, and how that names its columns with --columns")
    unknown = set(request.columns) - {*NEEDED, CORPUS}
    if unknown:
        raise CorpusError(f"--columns: {', '.join(sorted(unknown))} is not one of {', '.join([*NEEDED, CORPUS])}")
    named = {name: request.columns.get(name, name) for name in (*NEEDED, CORPUS)}
    needed = [named[name] for name in (*NEEDED, *({CORPUS} & set(request.columns)))]
    rows: list[Row] = []
    missing = []
    for cells in read_table(request.table, needed):
        corpus = cells.get(named[CORPUS], "")
        path = Path(request.roots.get(corpus, request.folder), cells[named["file"]])
        if not path.is_file():
            missing.append(f"{corpus}: {cells[named['file']]}" if corpus else cells[named["file"]])
            continue
        accent, speaker = cells[named["accent"]], cells[named["speaker"]]
        split = cells[named["split"]].lower()
        rows.append(
            {
                "path": str(path.absolute()),
                "split": SPLITS.get(split, split),
                "label": accent,
                "speaker": speaker,
                "group": speaker,
                "accent": accent,
                CORPUS: corpus,
                "us_uk": task(accent, UK, "UK"),
                "us_other": "" if accent.lower() in UK | IRISH else task(accent, None, "Other"),
            }
        )
    if not rows:
        raise CorpusError(f"{request.table}: none of its {len(missing)} files is there, such as {missing[:1]}")
    return Found(rows, missing)


def task(accent: str, against: set[str] | None, name: str) -> str:
    """US, the other class, or "" for an accent that belongs to neither; without `against` all others are that class."""
    if accent.lower() in US:
        return "US"
    return name if accent and (against is None or accent.lower() in against) else ""


VOXPROFILE = Corpus("voxprofile", read)
