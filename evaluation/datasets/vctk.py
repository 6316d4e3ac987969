"""VCTK (Yamagishi et al. 2019; version 0.92, and 0.80): 110 English speakers with their accents, CC BY 4.0.

    speaker-info.txt                                    ID  AGE  GENDER  ACCENTS  REGION COMMENTS
    wav48_silence_trimmed/p225/p225_001_mic1.flac       (0.80: wav48/p225/p225_001.wav)
    txt/p225/p225_001.txt

One corpus and one microphone (the first), so accents do not differ by recording. Splits: speakers, 70/15/15 of each
accent; accents of one or two speakers are not in all splits. Columns: accent (the label), speaker, sex, age, region,
text, sentence (its number: 001 to 024 are the same text for all speakers).

To check on arrival: that speakers without a line in speaker-info.txt (they are left out) are few; p315 has no texts.
"""

from __future__ import annotations

import re
from pathlib import Path

from evaluation.datasets.corpus import AUDIO, Corpus, CorpusError, Found, Request, Row, divided, only_folder, read_lines

INFO = "speaker-info.txt"
WAVES = ("wav48_silence_trimmed", "wav48")


def read(request: Request) -> Found:
    root = only_folder(request.folder, [INFO], "VCTK")
    about = speakers(root / INFO)
    waves = next((root / name for name in WAVES if (root / name).is_dir()), None)
    if waves is None:
        raise CorpusError(f"{root}: neither {' nor '.join(WAVES)} there")
    split_of = divided({speaker: cells["accent"] for speaker, cells in about.items()}, request.seed)
    rows: list[Row] = []
    for speaker, cells in about.items():
        for path in sorted((waves / speaker).glob("*")):
            if path.suffix not in AUDIO or path.stem.endswith("_mic2"):
                continue
            name = path.stem.removesuffix("_mic1")
            text = root / "txt" / speaker / f"{name}.txt"
            rows.append(
                {
                    "path": str(path.absolute()),
                    "split": split_of[speaker],
                    "label": cells["accent"],
                    "speaker": speaker,
                    "group": speaker,
                    **cells,
                    "sentence": name.rpartition("_")[2],
                    "text": " ".join(read_lines(text)).strip() if text.is_file() else "",
                }
            )
    if not rows:
        raise CorpusError(f"{waves}: no recordings of the speakers of {INFO} there")
    return Found(rows, [f"{waves.name}/{speaker}" for speaker in about if not (waves / speaker).is_dir()])


def speakers(path: Path) -> dict[str, Row]:
    """{speaker: age, sex, accent, region} of lines such as `p225  23  F    English    Southern  England`.

    A comment in brackets at the end is left out; version 0.80 leaves the p out.

    Raises:
        CorpusError: no such lines.
    """
    found: dict[str, Row] = {}
    for line in read_lines(path):
        cells = re.sub(r"\(.*", "", line).split()
        if len(cells) < 4 or not cells[1].isdecimal() or cells[2] not in ("F", "M"):
            continue
        name = f"p{cells[0]}" if cells[0].isdecimal() else cells[0]
        found[name] = {"sex": cells[2], "age": cells[1], "accent": cells[3], "region": " ".join(cells[4:])}
    if not found:
        raise CorpusError(f"{path}: no lines of the form ID AGE GENDER ACCENTS REGION")
    return found


VCTK = Corpus("vctk", read)
