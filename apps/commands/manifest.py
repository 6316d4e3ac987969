"""`steer manifest`: the manifest of a public corpus, as evaluators and trainings read it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from apps.messages import log
from apps.options import Force, Json, output

SHOWN = 5
"""Missing files that are named."""


def manifest(
    name: Annotated[str, typer.Argument(help="broderick, librispeech, ptdb, vctk, vocalset or voxprofile.")],
    folder: Annotated[Path, typer.Argument(help="Folder of the corpus, as it was unpacked.")],
    out: Annotated[Path, output("The manifest to write (CSV). Paths in it are relative to it.")],
    seed: Annotated[int, typer.Option(min=0, help="Of splits that the corpus does not have itself.")] = 0,
    table: Annotated[Path | None, typer.Option(help="voxprofile: its table (.csv or .tsv).")] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            help="voxprofile: how the table names file, accent, split, speaker, corpus: file=path,accent=dialect."
        ),
    ] = None,
    roots: Annotated[
        str | None, typer.Option(help="voxprofile: folders of its corpora, by their names: timit=DIR,cslu=DIR.")
    ] = None,
    as_json: Json = False,
    force: Force = False,
) -> None:
    """Write the manifest of a public corpus that you have: path, split, label, speaker, and what else it knows.

    Splits keep speakers apart. Evaluators take the manifest as --audio, and any of its columns as a label.
    """
    from collections import Counter

    from apps.files import to_json, write_result
    from evaluation.datasets import CORPORA
    from evaluation.datasets.corpus import Request, write_rows
    from hooks.clip import check_target

    check_target(out, force)
    places = {name: Path(place) for name, place in assignments("--roots", roots).items()}
    found = CORPORA[name].read(Request(folder, seed, table, assignments("--columns", columns), places))
    write_result(out, lambda partial: write_rows(found.rows, out.absolute().parent, partial), force)
    splits = dict(Counter(row["split"] for row in found.rows))
    if as_json:
        speakers = len({row[name] for row in found.rows for name in ("speaker", "subject") if name in row})
        print(to_json({"manifest": str(out), "clips": splits, "speakers": speakers, "missing": found.missing}))
        return
    counts = ", ".join(f"{split} {count}" for split, count in sorted(splits.items()))
    what = "recordings of EEG" if "eeg" in found.rows[0] else "clips"
    print(f"{out}: {len(found.rows)} {what} ({counts})")
    if found.missing:
        some = ", ".join(found.missing[:SHOWN]) + (" ..." if len(found.missing) > SHOWN else "")
        log.warning(f"steer: missing, {len(found.missing)} in all: {some}")


def assignments(option: str, text: str | None) -> dict[str, str]:
    """{name: value} of NAME=VALUE,NAME=VALUE. Raises CorpusError for what is not of that form."""
    from evaluation.datasets.corpus import CorpusError

    parts = [part.partition("=") for part in (text or "").split(",") if part.strip()]
    if not all(name.strip() and value.strip() for name, _, value in parts):
        raise CorpusError(f"{option} {text}: not of the form NAME=VALUE,NAME=VALUE")
    return {name.strip(): value.strip() for name, _, value in parts}
