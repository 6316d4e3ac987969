"""Natural speech of Broderick et al. 2018 (doi 10.5061/dryad.070jc, CC0): EEG of 19 people who heard a story in runs.

    Natural Speech/EEG/Subject1/Subject1_Run1.mat     (eegData [T, 128], mastoids [T, 2], fs 128)
    Natural Speech/Stimuli/audio1.wav                 (not in the public part: put it anywhere below the folder)

The splits are ours: of each five runs the first two are dev and the others test, the paper's share of 6 of 15 minutes,
all through the story. Run 15 is reported to be out of step with its sound after 170 s and is left out.
Columns: subject, run, audio, eeg, start_s (0: a file starts with its sound), split.

To check on arrival: that a file starts with its sound, and the names of the sounds.
"""

from __future__ import annotations

import re

from evaluation.datasets.corpus import AUDIO, Corpus, CorpusError, Found, Request, Row, only_folder

LEFT_OUT = (15,)
EEG_FILE = re.compile(r"Subject(\d+)_Run(\d+)\.mat", re.IGNORECASE)
AUDIO_FILE = re.compile(rf"audio(\d+)({'|'.join(re.escape(suffix) for suffix in AUDIO)})", re.IGNORECASE)


def read(request: Request) -> Found:
    root = only_folder(request.folder, ["Natural Speech", "EEG"], "the data set of Broderick et al.")
    recorded = {
        (int(match[2]), int(match[1])): path
        for path in sorted(root.rglob("*.mat"))
        if (match := EEG_FILE.fullmatch(path.name)) and int(match[2]) not in LEFT_OUT
    }
    if not recorded:
        raise CorpusError(f"{root}: no SubjectS_RunR.mat there")
    sounds = {int(match[1]): path for path in sorted(root.rglob("*")) if (match := AUDIO_FILE.fullmatch(path.name))}
    runs = sorted({run for run, _ in recorded} & set(sounds))
    if not runs:
        raise CorpusError(f"{root}: no audioR.wav there; the sound is not in the public part, ask the authors for it")
    split_of = {run: "dev" if index % 5 < 2 else "test" for index, run in enumerate(runs)}
    rows: list[Row] = [
        {
            "subject": str(subject),
            "run": str(run),
            "audio": str(sounds[run].absolute()),
            "eeg": str(path.absolute()),
            "start_s": "0",
            "split": split_of[run],
        }
        for (run, subject), path in sorted(recorded.items())
        if run in split_of
    ]
    missing = [f"audio{run}.wav" for run in sorted({run for run, _ in recorded} - set(runs))]
    return Found(rows, missing)


BRODERICK = Corpus("broderick", read)
