"""Labels that are confounded with speaker or corpus, and groups that are in two splits.

Where a label is a function of a group (all clips of a speaker have the same label), a probe that recognises speakers
predicts the label too. With fewer than `ENOUGH` groups per class such a label is refused, or with `--allow-confounded`
the confound is in the title of the result.

A group is what the manifest says in its column `group` (speaker, corpus or recording: what must not be in two splits),
else the speaker. The subset a clip is from counts as its corpus.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from evaluation.config import EvaluationError
from evaluation.dataset import LabelledSound

GROUP = "group"
"""The column of manifests; pass it among the `labels` of `Dataset.sounds`."""
ENOUGH = 3
"""Groups of a class from which on a label that is a function of them is still reported."""


class ConfoundError(EvaluationError):
    """A label that is a function of a group, or a group that is in two splits."""


def group_of(sound: LabelledSound) -> str:
    """What must not be in two splits: the cell of the column `group`, else the speaker; "" where neither is known."""
    return sound.labels.get(GROUP, "") or sound.speaker


KINDS: Mapping[str, Callable[[LabelledSound], str]] = {
    "group": lambda sound: sound.labels.get(GROUP, ""),
    "speaker": lambda sound: sound.speaker,
    "subset": lambda sound: sound.subset,
}


def confound(labels: Sequence[str], groups: Sequence[str]) -> str:
    """Why a label is confounded with a group, or "". Clips of an unknown group ("") do not count."""
    known = [(label, group) for label, group in zip(labels, groups, strict=True) if group]
    pairs = set(known)
    if not known or len({group for _, group in pairs}) < len(pairs):
        return ""  # some group has several labels
    fewest = min(sum(label == one for one, _ in pairs) for label in {label for label, _ in pairs})
    if fewest >= ENOUGH:
        return ""
    return f"each has one label, and some label has only {fewest}"


def check_confounds(label: str, sounds: Sequence[LabelledSound], labels: Sequence[str], allowed: bool = False) -> str:
    """What belongs into the title of a result about a label ("" for nothing): what it is confounded with.

    Raises:
        ConfoundError: the label is a function of a group with too few groups a class, and that is not `allowed`.
    """
    found = {name: confound(labels, [of(sound) for sound in sounds]) for name, of in KINDS.items()}
    found = {name: why for name, why in found.items() if why}
    if not found:
        return ""
    if not allowed:
        name, why = next(iter(found.items()))
        raise ConfoundError(
            f"--label {label}: it is confounded with the {name} ({why}; {ENOUGH} are required); "
            "--allow-confounded reports it all the same"
        )
    return f"confounded with {' and '.join(found)}"


def split_notes(train: Sequence[LabelledSound], held_out: Sequence[LabelledSound], allowed: bool = False) -> list[str]:
    """Warnings, one at most: the speakers that are in both splits.

    Raises:
        ConfoundError: a group of the column `group`, which must not be in two splits, is, and that is not `allowed`.
    """
    notes = []
    for name in (GROUP, "speaker"):
        of = KINDS[name]
        shared = sorted({of(sound) for sound in train} & {of(sound) for sound in held_out} - {""})
        if not shared:
            continue
        some = ", ".join(shared[:3]) + (" ..." if len(shared) > 3 else "")
        text = f"{name} {some} is" if len(shared) == 1 else f"{len(shared)} of the column {name} ({some}) are"
        text += " in two splits"
        if name == GROUP and not allowed:
            raise ConfoundError(f"{text}; --allow-confounded measures all the same")
        notes.append(f"{text}: the accuracy may come from recognising them")
    return notes[:1]
