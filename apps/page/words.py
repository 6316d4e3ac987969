"""A transcript as HTML with the words marked that are not as in another one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby

from evaluation.transcripts import words_of
from hooks.errors import require

NOTHING = "(nothing)"
"""Stands for a transcript without a word."""
CSS = """
.spoken { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
"""
"""What `marked` needs of the page's style: words for screen readers alone."""


def marked(before: str, after: str) -> str:
    """HTML of `after`, with <ins> around words that `before` has not and <del> around those that it alone has.

    Words are shown as they are written, and compared as word errors are counted (`evaluation.transcripts`): capitals,
    punctuation and "twenty five" for "25" are no change.

    Raises:
        MissingExtraError: what counts word errors (openai-whisper's normaliser and jiwer) is not installed.
    """
    parts = [part for old, new in changes(before.split(), after.split()) for part in shown(old, new)]
    return " ".join(parts if after.split() else [*parts, NOTHING])


def changes(before: Sequence[str], after: Sequence[str]) -> Iterator[tuple[Sequence[str] | None, Sequence[str]]]:
    """`after` from its start to its end in stretches (old, new): words that changed, or (None, words) that did not.

    The alignment is that of the fewest word errors. (difflib's takes minutes where a recogniser repeats itself.)
    """
    # jiwer brings rapidfuzz
    align = require("rapidfuzz.distance", "whisper").Levenshtein.opcodes
    steps = align([words_of(word) for word in before], [words_of(word) for word in after])
    for same, group in groupby(steps, lambda step: step.tag == "equal"):
        run = list(group)
        first, last = run[0], run[-1]
        old, new = before[first.src_start : last.src_end], after[first.dest_start : last.dest_end]
        # several words can be the same together, such as spoken numbers
        yield None if same or words_of(" ".join(old)) == words_of(" ".join(new)) else old, new


def shown(old: Sequence[str] | None, new: Sequence[str]) -> Iterator[str]:
    if old:
        yield f'<del><span class="spoken">removed: </span>{escape(" ".join(old))}</del>'
    if new and old is None:
        yield escape(" ".join(new))
    elif new:
        yield f'<ins><span class="spoken">added: </span>{escape(" ".join(new))}</ins>'
