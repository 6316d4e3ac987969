"""VocalSet (Wilkins et al. 2018; zenodo.org/records/1193957): 20 singers, singing techniques, CC BY 4.0.

    FULL/female1/arpeggios/belt/f1_arpeggios_belt_c_a.wav        (FULL/SINGER/CONTEXT/TECHNIQUE/...)
    test_singers_technique.txt

Splits: the test singers of the corpus' own list (or, without the file, those of its authors' code), and a fifth of the
others for valid, so no singer is in two. Columns: technique (the label), one of ten and "" for what is not one of these
(dynamics, say), speaker (the singer), sex, context, vowel.

To check on arrival: that test_singers_technique.txt names the singers of `TEST`; that the folder `vibrado` is a
misspelt `vibrato`.
"""

from __future__ import annotations

import re
from pathlib import Path

from evaluation.datasets.corpus import Corpus, CorpusError, Found, Request, Row, divided, only_folder, read_lines

TECHNIQUES = (
    "belt", "breathy", "inhaled", "lip_trill", "spoken", "straight", "trill", "trillo", "vibrato", "vocal_fry",
)  # fmt: skip
MISSPELT = {"vibrado": "vibrato"}
VOWELS = {"a", "e", "i", "o", "u"}
FULL, LIST = "FULL", "test_singers_technique.txt"
TEST = frozenset({"female2", "female8", "male3", "male5", "male10"})


def read(request: Request) -> Found:
    root = only_folder(request.folder, [FULL], "VocalSet")
    paths = sorted(path for path in (root / FULL).glob("*/*/*/*.wav") if not path.name.startswith("."))
    if not paths:
        raise CorpusError(f"{root / FULL}: no SINGER/CONTEXT/TECHNIQUE/*.wav there")
    singers = sorted({path.parts[-4] for path in paths})
    test = singers_to_test(root / LIST)
    if not test & set(singers):
        raise CorpusError(f"{root / FULL}: none of the test singers {', '.join(sorted(test))} is there")
    split_of = valid_of([singer for singer in singers if singer not in test], request.seed) | dict.fromkeys(
        test, "test"
    )
    rows: list[Row] = []
    for path in paths:
        singer, context, folder = path.parts[-4:-1]
        technique = MISSPELT.get(folder, folder)
        technique = technique if technique in TECHNIQUES else ""
        last = path.stem.rpartition("_")[2]
        rows.append(
            {
                "path": str(path.absolute()),
                "split": split_of[singer],
                "label": technique,
                "speaker": singer,
                "group": singer,
                "technique": technique,
                "sex": "F" if singer.startswith("female") else "M",
                "context": context,
                "vowel": last if last in VOWELS else "",
            }
        )
    return Found(rows, sorted(test - set(singers)))


def valid_of(singers: list[str], seed: int) -> dict[str, str]:
    """{singer: train or valid}: 15 % of either sex, and at least one."""
    splits = divided({singer: re.sub(r"\d+", "", singer) for singer in singers}, seed)
    return {singer: "train" if split == "test" else split for singer, split in splits.items()}


def singers_to_test(path: Path) -> frozenset[str]:
    """Those that the list names, as female2 or f2, in whatever lines; `TEST` where it is not there.

    Raises:
        CorpusError: it names none.
    """
    if not path.is_file():
        return TEST
    named = re.findall(r"\b(female|male|f|m)(\d+)\b", " ".join(read_lines(path)))
    if not named:
        raise CorpusError(f"{path}: names no singer as female2 or f2")
    return frozenset(f"{'female' if sex.startswith('f') else 'male'}{number}" for sex, number in named)


VOCALSET = Corpus("vocalset", read)
