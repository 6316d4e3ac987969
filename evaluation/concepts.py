"""Concepts: labels of clips that can be read from a model, and how the features of an SAE are ranked for one.

A concept is a label against all others of its kind, such as a bark among sounds: it is named `sound=bark`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from evaluation.ablation import ConceptError
from evaluation.dataset import LabelledSound

MIN_CLIPS = 2
"""Of each class, to train on and to test on."""


def contribution(f_NF: np.ndarray, is_N: np.ndarray, norm_F: np.ndarray) -> np.ndarray:
    """How far each feature [F] moves the mean activation from one class to the other: |difference of its means| x the
    norm of its row in the decoder. Features are means of clips, and `is_N` says which clips have the concept."""
    return np.abs(f_NF[is_N].mean(0) - f_NF[~is_N].mean(0)) * norm_F


def fisher_score(f_NF: np.ndarray, is_N: np.ndarray) -> np.ndarray:
    """Scatter of the two class means over the scatter within the classes, per feature [F]; 0 for one that is silent."""
    between_F, within_F = np.zeros(f_NF.shape[1]), np.zeros(f_NF.shape[1])
    for class_NF in (f_NF[is_N], f_NF[~is_N]):
        between_F += len(class_NF) * (class_NF.mean(0) - f_NF.mean(0)) ** 2
        within_F += len(class_NF) * class_NF.var(0)
    # a feature that tells the classes apart without a spread at all ranks first
    return between_F / np.maximum(within_F, 1e-12 * np.square(f_NF).sum(0) + 1e-30)


def concepts_of(train: Sequence[LabelledSound], held_out: Sequence[LabelledSound]) -> dict[str, np.ndarray]:
    """{kind=label: [N]}, 1 for clips with the label, 0 with another one of the kind, -1 with none of that kind.

    For all labels of clips to train on; of a kind with two labels only for the first, whose mirror the other is.
    """
    clips = [*train, *held_out]
    found = {}
    for kind in dict.fromkeys(kind for clip in clips for kind in clip.labels):
        values = [clip.labels.get(kind) for clip in clips]
        labels = list(dict.fromkeys(one.labels[kind] for one in train if kind in one.labels))
        if len({value for value in values if value is not None}) == 2:
            labels = labels[:1]
        for label in labels:
            found[f"{kind}={label}"] = np.array([-1 if value is None else int(value == label) for value in values])
    return found


def too_few(y_N: np.ndarray, train_N: np.ndarray) -> str:
    """What a concept lacks, or nothing."""
    for part, part_N in (("train on", train_N), ("test on", ~train_N)):
        for which, value in (("with", 1), ("without", 0)):
            count = int(((y_N == value) & part_N).sum())
            if count < MIN_CLIPS:
                return f"{count} clip{'s' * (count != 1)} {which} it to {part}, and it takes {MIN_CLIPS}"
    return ""


def chosen_of(known: Mapping[str, np.ndarray], wanted: Sequence[str], train_N: np.ndarray) -> list[str]:
    """Names of the wanted concepts (`sound=rain`, or all of a kind: `sound`); all if nothing is wanted.

    Raises:
        ConceptError: an unknown one, or one with too few clips.
    """
    names: dict[str, None] = {} if wanted else dict.fromkeys(known)
    for one in wanted:
        meant = [name for name in known if one in (name, name.partition("=")[0])]
        if not meant:
            raise ConceptError(f"there is no concept {one!r} in the clips to train on; there are {', '.join(known)}")
        names |= dict.fromkeys(meant)
    if not names:
        raise ConceptError("no clip to train on has a label")
    for name in names:
        if lack := too_few(known[name], train_N):
            raise ConceptError(f"concept {name}: {lack}")
    return list(names)


def log_counts(features: int, points: int) -> list[int]:
    """At most `points` numbers from 1 % of `features` (at least one) to all, evenly spread over the logarithm."""
    return sorted({round(count) for count in np.geomspace(max(1, features / 100), features, points)})
