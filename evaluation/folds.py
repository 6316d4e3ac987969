"""Folds of clips for cross-validation, in which groups stay whole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

FOLDS = 5
FEWEST = 3
"""With fewer groups than this the folds are of clips."""


def folds_of(
    groups_N: Sequence[str], labels_N: np.ndarray | None = None, count: int = FOLDS, seed: int = 0
) -> np.ndarray:
    """The fold [N] of each clip, from 0. Clips of a group are in one fold, and those of each label spread over all.

    A clip of group "" is a group by itself. With fewer groups than folds there are as many folds as groups, and with
    fewer than 3 of them groups do not count.
    """
    names = [group or f"clip {index}" for index, group in enumerate(groups_N)]
    if len(set(names)) < FEWEST:
        names = [f"clip {index}" for index in range(len(names))]
    labels_N = np.zeros(len(names), dtype=int) if labels_N is None else np.unique(labels_N, return_inverse=True)[1]
    count = min(count, len(set(names)))
    members: dict[str, list[int]] = {}
    for index in np.random.default_rng(seed).permutation(len(names)):
        members.setdefault(names[index], []).append(int(index))
    kinds = int(labels_N.max(initial=0)) + 1
    held_KC = np.zeros((count, kinds))
    fold_N = np.zeros(len(names), dtype=int)
    # large groups first: small ones can still level what they leave
    for indices in sorted(members.values(), key=len, reverse=True):
        own_C = np.bincount(labels_N[indices], minlength=kinds)
        fold = min(range(count), key=lambda one: (float(held_KC[one] @ own_C), float(held_KC[one].sum())))
        held_KC[fold] += own_C
        fold_N[indices] = fold
    return fold_N
