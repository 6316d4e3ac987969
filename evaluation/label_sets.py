"""Clips with a label, to train on and held out, checked for what would make a result about them empty."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.concept_sets import LabelError
from evaluation.confounds import GROUP, check_confounds, group_of, split_notes
from evaluation.dataset import Dataset, LabelledSound, is_impulse_response

FEWEST = 2
"""Clips of a class to train on."""


@dataclass(frozen=True)
class LabelSets:
    """Clips and their classes, as numbers: `train_y` [N] and `held_out_y` [M] index `classes`.

    `confound` belongs into titles ("" for none); `notes` are sentences for the user.
    """

    label: str
    classes: list[str]
    train: list[LabelledSound]
    held_out: list[LabelledSound]
    train_y: np.ndarray
    held_out_y: np.ndarray
    confound: str
    notes: list[str]

    @property
    def train_groups(self) -> list[str]:
        return [group_of(sound) for sound in self.train]

    @property
    def held_out_groups(self) -> list[str]:
        return [group_of(sound) for sound in self.held_out]

    @property
    def majority(self) -> float:
        """The share of held-out clips that are of the class with the most clips to train on."""
        return float((self.held_out_y == np.bincount(self.train_y).argmax()).mean())

    def about(self) -> dict[str, object]:
        """Counts and notes for a report."""
        return {
            "label": self.label,
            "classes": len(self.classes),
            "clips to train on": len(self.train),
            "clips held out": len(self.held_out),
            "most frequent class, share": round(self.majority, 3),
            "notes": self.notes,
        }


def label_sets(
    dataset: Dataset,
    label: str,
    subsets: Sequence[str] = (),
    held_out: Sequence[str] = ("test",),
    limit: int | None = None,
    allow_confounded: bool = False,
) -> LabelSets:
    """Clips of split `train` and of the splits held out that have a label in that column of the manifests.

    Raises:
        LabelError: no clip has the label, there are fewer than two classes, or a class has one clip to train on.
        ConfoundError: the label is confounded with a group, or a group is in two splits (`evaluation.confounds`).
        AudioFileError: no clips of a split, or one that is missing.
    """
    dataset.check()
    chosen = list(subsets) or dataset.subsets
    if not any(label in row for subset in chosen for row in dataset.rows(subset)[:1]):
        raise LabelError(f"--label {label}: the manifests of {', '.join(chosen)} have no such column")

    def labelled(split: str) -> list[LabelledSound]:
        sounds = dataset.sounds(subsets or None, split, limit, (label, "label", GROUP))
        return [sound for sound in sounds if sound.labels.get(label) and not is_impulse_response(sound.labels)]

    train, others = labelled("train"), [sound for split in held_out for sound in labelled(split)]
    counts = Counter(sound.labels[label] for sound in train)
    classes = sorted(counts)
    known = [sound for sound in others if sound.labels[label] in counts]
    if len(classes) < 2:
        have = f"they are all {classes[0]!r}" if classes else "none of them has it"
        raise LabelError(f"--label {label}: the clips to train on need two classes at least; {have}")
    if rare := [name for name in classes if counts[name] < FEWEST]:
        raise LabelError(f"--label {label}: of {', '.join(rare[:5])} there is one clip to train on; leave it out")
    if not known:
        raise LabelError(f"--label {label}: no clip of split {', '.join(held_out)} has a label that is trained on")
    every = [*train, *known]
    confound = check_confounds(label, every, [sound.labels[label] for sound in every], allow_confounded)
    notes = split_notes(train, known, allow_confounded)
    if len(known) < len(others):
        notes.append(f"{len(others) - len(known)} held-out clips have a label that no clip to train on has: left out")
    numbers = {name: number for number, name in enumerate(classes)}
    train_y, held_out_y = (np.array([numbers[one.labels[label]] for one in some]) for some in (train, known))
    return LabelSets(label, classes, train, known, train_y, held_out_y, confound, notes)
