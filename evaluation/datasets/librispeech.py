"""LibriSpeech (Panayotov et al. 2015; openslr.org/12): read English, CC BY 4.0.

    LibriSpeech/SPEAKERS.TXT
    LibriSpeech/test-clean/61/70968/61-70968-0000.flac
    LibriSpeech/test-clean/61/70968/61-70968.trans.txt

Splits are the corpus' own: train-*, dev-* (valid) and test-*, of whichever parts are there; no speaker is in two of
them. Columns: speaker, chapter, sex (where SPEAKERS.TXT is there), text in lower case, part.

To check on arrival: that SPEAKERS.TXT has the sex in its second field.
"""

from __future__ import annotations

from pathlib import Path

from evaluation.datasets.corpus import Corpus, CorpusError, Found, Request, Row, only_folder, read_lines

SPLITS = {"train": "train", "dev": "valid", "test": "test"}
PARTS = (
    "train-clean-100", "train-clean-360", "train-other-500", "dev-clean", "dev-other", "test-clean", "test-other",
)  # fmt: skip
SPEAKERS = "SPEAKERS.TXT"


def read(request: Request) -> Found:
    root = only_folder(request.folder, PARTS, "LibriSpeech")
    sex_of = sexes(root / SPEAKERS)
    rows: list[Row] = []
    missing = []
    for part in (part for part in PARTS if (root / part).is_dir()):
        for transcript in sorted((root / part).glob("*/*/*.trans.txt")):
            speaker, chapter = transcript.parent.parent.name, transcript.parent.name
            for line in read_lines(transcript):
                name, _, text = line.partition(" ")
                path = transcript.with_name(f"{name}.flac")
                if not path.is_file():
                    missing.append(str(path.relative_to(root)))
                    continue
                rows.append(
                    {
                        "path": str(path.absolute()),
                        "split": SPLITS[part.partition("-")[0]],
                        "speaker": speaker,
                        "group": speaker,
                        "sex": sex_of.get(speaker, ""),
                        "chapter": chapter,
                        "text": text.lower(),
                        "part": part,
                    }
                )
    if not rows:
        raise CorpusError(f"{root}: no utterances there; they would be in PART/SPEAKER/CHAPTER/, with a .trans.txt")
    return Found(rows, missing)


def sexes(path: Path) -> dict[str, str]:
    """{speaker: F or M}; nothing where the table is not there. Its lines are `14 | F | train-clean-360 | ...`."""
    if not path.is_file():
        return {}
    fields = [[cell.strip() for cell in line.split("|")] for line in read_lines(path) if not line.startswith(";")]
    return {cells[0]: cells[1] for cells in fields if len(cells) > 2}


LIBRISPEECH = Corpus("librispeech", read)
