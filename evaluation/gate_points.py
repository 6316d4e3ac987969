"""What gates cost whatever their thresholds: on all clips with speech, also those whose words are not known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from evaluation.auroc import auroc
from evaluation.dataset import LabelledSound
from evaluation.gate_fits import ACTIVATION, BY_SECOND, VAD, Study
from evaluation.gate_long import by_second
from evaluation.gate_methods import Decision
from evaluation.gate_rows import EMPTY, LOST
from evaluation.gate_vad import vad_on
from evaluation.report import Row, Share
from evaluation.transcripts import over_clips, ratio
from steer.gates import Gate


def all_speech(
    study: Study,
    gates: Mapping[str, Gate],
    vad: Decision | None,
    speech: Sequence[LabelledSound],
) -> list[Row]:
    """Two kinds of rows: on how many of all clips with speech of the test split each gate opens, as a whole and by
    subset (where it is shut the transcript is as without it, to the bit); and on which share of the clips without
    speech it would open at the threshold at which it opens on a given share of those with speech."""
    silent = study.passes.of(study.test.silent, study.progress)
    both = study.passes.of(speech, study.progress)
    logits = {
        name: tuple(of[name == ACTIVATION].logits(gate.probe) for of in (silent, both)) for name, gate in gates.items()
    }
    thresholds = {name: gate.threshold for name, gate in gates.items()}
    if vad is not None:
        scores = vad_on(study, [*study.test.silent, *speech], vad.threshold).logits
        logits[VAD] = tuple(torch.tensor([scores[one.name] for one in some]) for some in (study.test.silent, speech))
        thresholds[VAD] = vad.threshold
    rows: list[Row] = []
    for name, (_, speech_M) in logits.items():
        opens_M = (speech_M > thresholds[name]).double().numpy()
        rows += by_subset(name, speech, {"gate opens": opens_M})
    if BY_SECOND in study.edits:
        rows += changed(study, speech)
    rows += [
        {**EMPTY, "case": "at any threshold", "method": name, **separation(silent_N, speech_M)}
        for name, (silent_N, speech_M) in logits.items()
    ]
    return rows


def changed(study: Study, speech: Sequence[LabelledSound]) -> list[Row]:
    """Clips with speech that the gate by the second changes; only those on which it opens are transcribed."""
    decision = by_second(study, speech)
    opened = [sound for sound in speech if decision.opens(sound)]
    plain = study.heard(opened, None)
    heard = study.heard(opened, decision, BY_SECOND)
    others = {sound.name for sound, a, b in zip(opened, heard, plain, strict=True) if a.words != b.words}
    columns = {
        "gate opens": np.array([float(decision.opens(sound)) for sound in speech]),
        "changed": np.array([float(sound.name in others) for sound in speech]),
    }
    return by_subset(BY_SECOND, speech, columns)


def by_subset(method: str, speech: Sequence[LabelledSound], columns: Mapping[str, np.ndarray]) -> list[Row]:
    """Shares of clips [M] by column, of all clips and of each subset."""
    rows: list[Row] = []
    for subset in ["", *sorted({sound.subset for sound in speech})]:
        at = [index for index, sound in enumerate(speech) if subset in ("", sound.subset)]
        who = [speech[index].speaker for index in at]
        shares = {
            name: over_clips(ratio, one_M[at], np.ones(len(at)), kind=Share, speakers=who)
            for name, one_M in columns.items()
        }
        case = f"all clips with speech, {subset}" if subset else "all clips with speech"
        rows.append({**EMPTY, "case": case, "method": method, "clips": len(at), **shares})
    return rows


def separation(silent_N: Tensor, speech_M: Tensor) -> Row:
    """AUROC, and the share of clips without speech on which a gate opens where a share `LOST` of the others is lost."""
    both = torch.cat([silent_N, speech_M])
    found: Row = {"AUROC": float(auroc(both[:, None], (torch.arange(len(both)) < len(silent_N))[None])[0, 0])}
    falses_M = speech_M.sort(descending=True).values
    for column, share in LOST.items():
        bound = falses_M[int(share * len(falses_M))]
        found[column] = over_clips(ratio, (silent_N > bound).double().numpy(), np.ones(len(silent_N)), kind=Share)
    return found
