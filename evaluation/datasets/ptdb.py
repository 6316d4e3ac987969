"""PTDB-TUG (Pirker et al. 2011, Graz University of Technology): 20 speakers, laryngograph, reference pitch; ODbL.

    SPEECH DATA/FEMALE/MIC/F01/mic_F01_sa1.wav
    SPEECH DATA/FEMALE/LAR/F01/lar_F01_sa1.wav
    SPEECH DATA/FEMALE/REF/F01/ref_F01_sa1.f0

Splits: speakers, 70/15/15, of either sex. Columns: speaker, sex (the label), sentence, and f0_path: the reference, F0
in Hz in the first column (0 where unvoiced), a row each 10 ms.

To check on arrival: columns and hop of the .f0 files, and that each sentence of MIC has its REF.
"""

from __future__ import annotations

from evaluation.datasets.corpus import Corpus, CorpusError, Found, Request, Row, divided, only_folder

SEXES = {"FEMALE": "F", "MALE": "M"}


def read(request: Request) -> Found:
    root = only_folder(request.folder, list(SEXES), "PTDB-TUG")
    found = [(path, path.parent.name, sex) for sex in SEXES for path in sorted((root / sex).glob("MIC/*/mic_*.wav"))]
    if not found:
        raise CorpusError(f"{root}: no FEMALE/MIC/SPEAKER/mic_*.wav there, nor of MALE")
    split_of = divided({speaker: SEXES[sex] for _, speaker, sex in found}, request.seed)
    rows: list[Row] = []
    missing = []
    for path, speaker, sex in found:
        name = path.stem.removeprefix("mic_")
        reference = root / sex / "REF" / speaker / f"ref_{name}.f0"
        if not reference.is_file():
            missing.append(str(reference.relative_to(root)))
        rows.append(
            {
                "path": str(path.absolute()),
                "split": split_of[speaker],
                "label": SEXES[sex],
                "speaker": speaker,
                "group": speaker,
                "sex": SEXES[sex],
                "sentence": name.removeprefix(f"{speaker}_"),
                "f0_path": str(reference.absolute()) if reference.is_file() else "",
            }
        )
    return Found(rows, missing)


PTDB = Corpus("ptdb", read)
